//! Commands that exist in docker and not here yet: they know their flags, check their arguments, and say so.

use super::container_flags::LIMITS;
use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};

pub static BUILD: Command = Command {
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image (not supported yet)",
    names: "image build, build, builder build",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[BUILD_FLAGS, LIMITS],
    run: handler!(refuse),
};

static BUILD_FLAGS: &[Flag] = &[
    flag("add-host", Kind::ExtraHost, "Entry for the hosts file (host:ip)"),
    flag("build-arg", Kind::Env, "Variable of the build"),
    flag("cache-from", Kind::Strings, "Image to take as cache"),
    flag("cgroup-parent", Kind::Text, "Cgroup to put containers under"),
    flag("compress", Kind::Bool, "Compress the context"),
    flag("disable-content-trust", Kind::Bool, "Do not verify images").default("true"),
    short('f', "file", Kind::Text, "The Dockerfile"),
    flag("force-rm", Kind::Bool, "Always remove intermediate containers"),
    flag("iidfile", Kind::Text, "File to write the image's id to"),
    flag("isolation", Kind::Text, "Isolation technology"),
    flag("label", Kind::Label, "Label of the image"),
    flag("network", Kind::Text, "Network of build steps").default("default"),
    flag("no-cache", Kind::Bool, "Build every step anew"),
    flag("platform", Kind::Text, "Platform of the image"),
    flag("pull", Kind::Bool, "Always pull base images"),
    short('q', "quiet", Kind::Bool, "Print the image's id only"),
    flag("rm", Kind::Bool, "Remove intermediate containers").default("true"),
    flag("security-opt", Kind::Strings, "Security option"),
    flag("shm-size", Kind::Bytes, "Size of /dev/shm"),
    flag("squash", Kind::Bool, "Make one layer of all new ones").hidden(),
    short('t', "tag", Kind::List, "Name of the image"),
    flag("target", Kind::Text, "Stage to build"),
    flag("ulimit", Kind::Ulimit, "Resource limit"),
];

async fn refuse(call: Call) -> Outcome {
    let (program, name) = (crate::app::NAME, call.name);
    Err(Error::Message(format!("{program}: '{name}' is not supported by this client yet")))
}
