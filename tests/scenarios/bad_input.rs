//! Bad input gets Docker's status and words, and leaves nothing behind.

use std::process::Command;

use cleat_tests::{TestDaemon, run};

/// Sends a body to a path and returns status and answer.
fn post(daemon: &TestDaemon, path: &str, body: &str) -> (String, String) {
    let url = format!("http://d/v1.51{path}");
    let socket = daemon.path("cleat.sock");
    let mut curl = Command::new("curl");
    curl.args([
        "-s",
        "-w",
        "\n%{http_code}",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
        "--unix-socket",
    ]);
    let text = run(curl.arg(socket).arg(url)).ok();
    let (answer, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), answer.trim().to_owned())
}

#[track_caller]
fn refused(daemon: &TestDaemon, path: &str, body: &str, status: &str, message: &str) {
    let (got, answer) = post(daemon, path, body);
    assert_eq!(
        (got.as_str(), answer.contains(message)),
        (status, true),
        "{path} {body}: {got} {answer}"
    );
}

#[test]
fn a_create_that_makes_no_sense_is_refused_and_leaves_nothing() {
    let daemon = TestDaemon::with_busybox();
    let create = "/containers/create";
    refused(&daemon, create, "{", "400", "unexpected EOF");
    refused(&daemon, create, "[]", "400", "cannot unmarshal array");
    refused(&daemon, create, r#"{"Image":7}"#, "400", "cannot unmarshal number");
    refused(&daemon, create, "{}", "400", "config cannot be empty in order to create a container");
    refused(&daemon, create, r#"{"Image":"nope"}"#, "404", "No such image: nope:latest");
    let with = |host: &str| format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{host}}}"#);
    refused(
        &daemon,
        create,
        &with(r#"{"Memory":1}"#),
        "400",
        "Minimum memory limit allowed is 6MB",
    );
    refused(
        &daemon,
        create,
        &with(r#"{"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}}"#),
        "400",
        "99999",
    );
    refused(
        &daemon,
        create,
        &with(r#"{"Binds":["a:b:c:d:e"]}"#),
        "500",
        "invalid volume specification: 'a:b:c:d:e'",
    );
    refused(
        &daemon,
        create,
        &with(r#"{"Mounts":[{"Type":"bind","Source":"/nope/nope","Target":"/x"}]}"#),
        "400",
        "bind source path does not exist: /nope/nope",
    );
    refused(&daemon, create, &with(r#"{"CapAdd":["NOPE"]}"#), "400", "NOPE");
    refused(
        &daemon,
        create,
        &with(r#"{"RestartPolicy":{"Name":"sometimes"}}"#),
        "400",
        "sometimes",
    );
    refused(&daemon, &format!("{create}?name=a%20b"), &with("{}"), "400", "Invalid container name");
    assert_eq!(daemon.docker(["ps", "-aq"]).ok(), "");
    assert_eq!(daemon.docker(["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn a_name_in_use_is_a_conflict_that_names_its_holder() {
    let daemon = TestDaemon::with_busybox();
    let id = daemon.docker(["create", "--name", "one", "busybox"]).ok();
    let sentence = format!(
        "Conflict. The container name \"/one\" is already in use by container \"{id}\". You have to remove (or rename) that \
         container to be able to reuse that name."
    );
    daemon.docker(["create", "--name", "one", "busybox"]).expect(1).says(&sentence);
    daemon.docker(["create", "--name", "two", "busybox"]).ok();
    daemon.docker(["rename", "two", "one"]).expect(1).says("is already in use");
}

#[test]
fn a_container_that_cannot_start_is_whole_and_leaves_nothing_on_the_host() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "--name", "no", "busybox", "nope"]).expect(127);
    assert_eq!(daemon.inspect("no", ".State.Status"), "created");
    assert_eq!(daemon.inspect("no", ".State.ExitCode"), "127");
    daemon.docker(["start", "no"]).expect(1).says("executable file not found in $PATH");
    daemon.docker(["rm", "no"]).ok();
}

#[test]
fn what_is_not_there_is_not_found() {
    let daemon = TestDaemon::start();
    refused(&daemon, "/containers/nope/start", "", "404", "No such container: nope");
    refused(&daemon, "/exec/nope/start", "{}", "404", "No such exec instance: nope");
    refused(&daemon, "/nope", "", "404", "page not found");
    daemon.docker(["volume", "rm", "nope"]).expect(1).says("get nope: no such volume");
    daemon.docker(["rmi", "nope"]).expect(1).says("No such image: nope");
}

#[test]
fn what_docker_finds_out_at_start_is_refused_at_start() {
    let daemon = TestDaemon::with_busybox();
    let check = |host: &str, status: &str, message: &str| {
        let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{host}}}"#);
        let (created, answer) = post(&daemon, "/containers/create", &body);
        assert_eq!(created, "201", "{host}: {answer}");
        let id = answer.split('"').nth(3).unwrap();
        refused(&daemon, &format!("/containers/{id}/start"), "", status, message);
        daemon.docker(["rm", id]).ok();
    };
    let runtime = "failed to create shim task: OCI runtime create failed: runc create failed: ";
    check(
        r#"{"Sysctls":{"kernel.x":"1"}}"#,
        "500",
        &format!(r#"{runtime}sysctl \"kernel.x\" is not in a separate kernel namespace"#),
    );
    for missing in ["net/../kernel/core_pattern", "net.../kernel/hostname", "net.ipv4.nope"] {
        let body = format!(r#"{{"Sysctls":{{"{missing}":"x"}}}}"#);
        check(&body, "400", &format!("open sysctl {missing} file: "));
    }
    check(r#"{"Ulimits":[{"Name":"nofile","Soft":5,"Hard":2}]}"#, "500", runtime);
    check(r#"{"Dns":["bad"]}"#, "500", "bad nameserver address bad");
    check(r#"{"DeviceCgroupRules":["bad"]}"#, "500", "invalid device cgroup rule format: 'bad'");
    check(
        r#"{"NetworkMode":"container:nope"}"#,
        "500",
        "joining network namespace of container: No such container: nope",
    );
    let log =
        |option: &str| format!(r#"{{"LogConfig":{{"Type":"json-file","Config":{{{option}}}}}}}"#);
    let failed = "failed to create task for container: failed to initialize logging driver: ";
    check(&log(r#""max-size":"x""#), "500", &format!("{failed}invalid size: 'x'"));
    check(&log(r#""tag":"{{.Nope}}""#), "500", "can't evaluate field Nope");
    check(&log(r#""labels-regex":"[""#), "500", &format!("{failed}error parsing regexp"));
}

#[test]
fn a_client_that_still_sends_hears_why_it_was_refused() {
    let daemon = TestDaemon::with_busybox();
    // More than the kernel keeps of what nobody reads.
    let archive = vec![0; 16 << 20];
    daemon
        .docker_with_stdin(["import", "-c", "BOGUS", "-", "x"], archive)
        .expect(1)
        .says("Error response from daemon: BOGUS is not a valid change command");
}

#[test]
fn what_the_kernel_cannot_limit_is_discarded_with_a_warning() {
    let daemon = TestDaemon::with_busybox();
    let body = r#"{"Image":"busybox","HostConfig":{"CpuPercent":5,"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}}"#;
    let (status, answer) = post(&daemon, "/containers/create", body);
    assert_eq!(status, "201", "{answer}");
    assert!(answer.contains("linux does not support CPU percent. Percent discarded."), "{answer}");
    let id = answer.split('"').nth(3).unwrap();
    assert_eq!(daemon.inspect(id, ".HostConfig.CpuPercent"), "0");
    // The port is not exposed, so nothing is published.
    daemon.docker(["start", id]).ok();
    assert_eq!(daemon.inspect(id, ".NetworkSettings.Ports"), "map[]");
    daemon.docker(["rm", "-f", id]).ok();
}

#[test]
fn a_form_in_the_body_adds_to_the_query() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["create", "--name", "one", "busybox"]).ok();
    let send = |path: &str, body: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, "--unix-socket"]);
        curl.arg(daemon.path("cleat.sock")).arg(format!("http://d{path}"));
        run(&mut curl).ok()
    };
    assert_eq!(send("/containers/one/rename", "name=two"), "204");
    assert_eq!(daemon.inspect("two", ".Name"), "/two");
    assert_eq!(send("/containers/two/rename?name=none", "name=three"), "204");
    assert_eq!(daemon.inspect("three", ".Name"), "/three");
    assert_eq!(send("/containers/three/rename", "name=%zz"), "400");
    // A body that nobody reads does not cost the client its answer.
    assert_eq!(send("/containers/nope/kill", &"x".repeat(100_000)), "404");
}
