//! The scripts. Each is `lua/common.lua` and a file of its own, whose head tells its keys, arguments and answer. What must
//! go on in a store that is full is flagged `allow-oom`; what only reads is flagged so.

use std::sync::LazyLock;

use deadpool_redis::redis;

/// Refused in a full store: that is the back-pressure.
const REFUSED_WHEN_FULL: &str = "#!lua\n";
const ALLOW_OOM: &str = "#!lua flags=allow-oom\n";
const NO_WRITES: &str = "#!lua flags=no-writes\n";

macro_rules! scripts {
    ($($name:ident $file:literal $flags:ident $op:literal;)+) => {
        /// One script.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Script { $($name,)+ }

        impl Script {
            /// What it does, for errors.
            pub(super) const fn op(self) -> &'static str {
                match self { $(Self::$name => $op,)+ }
            }
        }

        fn all() -> Vec<(String, String)> {
            vec![$({
                let text = [$flags, include_str!("lua/common.lua"), include_str!(concat!("lua/", $file, ".lua"))].concat();
                let hash = redis::Script::new(&text).get_hash().to_owned();
                (hash, text)
            },)+]
        }
    };
}

scripts! {
    Insert "insert" REFUSED_WHEN_FULL "insert";
    Claim "claim" ALLOW_OOM "claim";
    Complete "complete" ALLOW_OOM "settle";
    Look "look" NO_WRITES "look at jobs";
    Commit "commit" ALLOW_OOM "move jobs";
    Forget "forget" ALLOW_OOM "trim";
    Renew "renew" ALLOW_OOM "renew";
    Seize "seize" ALLOW_OOM "rescue";
    Sweep "sweep" ALLOW_OOM "sweep";
    Census "census" NO_WRITES "count jobs";
    Stream "stream" ALLOW_OOM "name a queue";
    Flip "flip" ALLOW_OOM "flip";
    Append "append" ALLOW_OOM "append to the ledger";
    Put "put" ALLOW_OOM "write a record";
    Records "records" NO_WRITES "read records";
    Beat "beat" ALLOW_OOM "beat";
    Probe "probe" ALLOW_OOM "probe";
    Wish "wish" ALLOW_OOM "cancel";
}

/// All of them, with their hashes.
pub(super) struct Scripts(Vec<(String, String)>);

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts(all()));

impl Scripts {
    pub(super) fn hash(&self, script: Script) -> &str {
        self.0.get(script as usize).map_or("", |(hash, _)| hash)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, text)| text.as_str())
    }
}
