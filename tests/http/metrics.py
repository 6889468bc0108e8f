"""Reads a scrape from standard input with the parsers of Prometheus' own client library, and prints what they understood."""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

read = {"prometheus": parser, "openmetrics": openmetrics}[sys.argv[1]]
families = list(read.text_string_to_metric_families(sys.stdin.read()))
json.dump(
    [
        {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "samples": [[sample.name, sample.labels, sample.value] for sample in family.samples],
        }
        for family in families
    ],
    sys.stdout,
)
