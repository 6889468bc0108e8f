-- Writes a name into the index of tiers. It is no key of a tier: where those are spread over slots it has one of its own, and so
-- it is a script of its own.
-- KEYS[1] the index · ARGV[1] tier
return call('SADD', P, ARGV[1])
