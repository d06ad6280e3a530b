//! The systemd units.

use std::{fs, process::Command};

use cleat_tests::{binary, repository, run};

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let directory = tempfile::tempdir().unwrap();
    for unit in ["cleat.service", "cleat.socket"] {
        let text = fs::read_to_string(repository().join("deploy/systemd").join(unit)).unwrap();
        let text = text.replace("/usr/bin/cleatd", &binary("cleatd").to_string_lossy());
        fs::write(directory.path().join(unit), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .arg("verify")
        .arg("--man=no")
        .args(["cleat.service", "cleat.socket"].map(|unit| directory.path().join(unit)));
    let ran = run(&mut verify).expect(0);
    assert!(!ran.stderr.contains("cleat"), "{}", ran.stderr);
}
