//! `cp`.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::error::Outcome;
use crate::flags::{Kind, short};

pub static CP: Command = Command {
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tcleat cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files between a container and the host",
    names: "container cp, cp",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[&[
        short('a', "archive", Kind::Bool, "Keep owners"),
        short('L', "follow-link", Kind::Bool, "Follow a symbolic link that is the source"),
        short('q', "quiet", Kind::Bool, "Print nothing"),
    ]],
    run: handler!(run),
};

async fn run(_call: Call) -> Outcome {
    Err("cp comes next".into())
}
