//! TLS on `tcp://`: who has a certificate comes in.

use std::{fs, path::Path};

use cleat_tests::{Options, Ran, TestDaemon, binary, run, run_with_stdin};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Makes an authority, and a daemon's and a client's certificate signed by it, where docker looks for them.
fn make_certificates(directory: &Path) {
    let write = |name: &str, text: String| fs::write(directory.join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    write("ca.pem", authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    let sign = |prefix: &str, names: &[&str], usage| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        write(&format!("{prefix}cert.pem"), certificate.pem());
        write(&format!("{prefix}key.pem"), key.serialize_pem());
    };
    sign("server-", &["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    sign("", &["client"], ExtendedKeyUsagePurpose::ClientAuth);
}

/// A daemon with TLS on TCP in its network namespace, and the files for it.
struct Secured {
    daemon: TestDaemon,
    directory: tempfile::TempDir,
}

const ADDRESS: &str = "tcp://127.0.0.1:2376";

impl Secured {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_certificates(directory.path());
        let path = |name: &str| directory.path().join(name).display().to_string();
        // All of it in the file: the keys are dockerd's.
        let file = serde_json::json!({
            "tlsverify": true,
            "tlscacert": path("ca.pem"),
            "tlscert": path("server-cert.pem"),
            "tlskey": path("server-key.pem"),
        });
        fs::write(path("daemon.json"), file.to_string()).unwrap();
        let flags = ["--config-file", &path("daemon.json"), "-H", ADDRESS].map(str::to_owned);
        let daemon = TestDaemon::with(Options { flags: flags.into(), ..Options::default() });
        daemon.import_busybox();
        Self { daemon, directory }
    }

    /// Runs a client beside the daemon.
    fn client<const N: usize>(&self, program: &Path, flags: &[&str], args: [&str; N]) -> Ran {
        self.client_with_stdin(program, flags, args, "")
    }

    fn client_with_stdin<const N: usize>(
        &self,
        program: &Path,
        flags: &[&str],
        args: [&str; N],
        stdin: &str,
    ) -> Ran {
        let mut command = self.daemon.network().command(program);
        command.env("DOCKER_CONFIG", self.directory.path().join("no-config"));
        command.env("DOCKER_CERT_PATH", self.directory.path());
        command.env("DOCKER_HOST", ADDRESS);
        command.args(flags).args(args);
        match stdin {
            "" => run(&mut command),
            text => run_with_stdin(&mut command, text.as_bytes().to_vec()),
        }
    }
}

fn clients() -> [std::path::PathBuf; 2] {
    [cleat_tests::docker(), binary("cleat")]
}

#[test]
fn a_client_with_a_certificate_comes_in() {
    let secured = Secured::start();
    for client in clients() {
        let verify = ["--tlsverify"];
        assert_eq!(
            secured.client(&client, &verify, ["version", "-f", "{{.Server.Os}}"]).ok(),
            "linux"
        );
        // Streams that are taken over go through TLS as well, half-closed and to their end.
        let echo = secured.client_with_stdin(
            &client,
            &verify,
            ["run", "-i", "--rm", "busybox", "cat"],
            "hello",
        );
        assert_eq!(echo.ok(), "hello");
        let many =
            secured.client(&client, &verify, ["run", "--rm", "busybox", "seq", "20000"]).ok();
        assert_eq!(many.lines().count(), 20000);
        // So does a log that is followed, which the shim sends.
        let talk = "echo one; sleep 0.2; echo two";
        secured
            .client(
                &client,
                &verify,
                ["run", "-d", "--name", "talker", "busybox", "sh", "-c", talk],
            )
            .ok();
        assert_eq!(secured.client(&client, &verify, ["logs", "-f", "talker"]).ok(), "one\ntwo");
        secured.client(&client, &verify, ["rm", "talker"]).ok();
        assert_eq!(secured.client(&client, &["--tls"], ["ps", "-aq"]).ok(), "");
    }
}

#[test]
fn a_client_without_one_is_refused() {
    let secured = Secured::start();
    fs::remove_file(secured.directory.path().join("cert.pem")).unwrap();
    fs::remove_file(secured.directory.path().join("key.pem")).unwrap();
    for client in clients() {
        let refused = secured.client(&client, &["--tlsverify"], ["ps"]).expect(1);
        assert!(refused.stderr.contains("certificate required"), "{}", refused.stderr);
        // Nor does one who speaks no TLS come in.
        secured.client(&client, &[], ["ps"]).expect(1);
    }
}

#[test]
fn a_daemon_of_another_authority_is_not_trusted() {
    let secured = Secured::start();
    make_certificates(secured.directory.path());
    for client in clients() {
        let refused = secured.client(&client, &["--tlsverify"], ["ps"]).expect(1);
        assert!(
            refused.stderr.contains("tls: failed to verify certificate: x509"),
            "{}",
            refused.stderr
        );
    }
}
