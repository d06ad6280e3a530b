//! `-it` under a real pseudoterminal.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use cleat_tests::{TestDaemon, wait_for};
use nix::pty::{Winsize, openpty};

/// A client on a terminal of its own.
struct Terminal {
    client: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn open(mut command: Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let client = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut master = File::from(pty.master);
        let keyboard = master.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        // The command holds the other end's descriptors until it is dropped; without that the reader never ends.
        drop(command);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { client, keyboard, screen, seen: String::new() }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits until the screen has shown `text` since the last call.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let (screen, seen) = (&self.screen, &mut self.seen);
        wait_for(&format!("{text:?} on the terminal"), || {
            seen.extend(
                screen.try_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            );
            seen.contains(text).then_some(())
        });
        seen.clear();
    }

    fn code(mut self) -> Option<i32> {
        wait_for("the client's end", || self.client.try_wait().unwrap()).code()
    }
}

fn commands(daemon: &TestDaemon) -> [Command; 2] {
    [daemon.docker_command(), daemon.cleat_command()]
}

#[test]
fn a_shell_on_a_terminal() {
    let daemon = TestDaemon::with_busybox();
    for mut command in commands(&daemon) {
        command.args(["run", "-it", "--rm", "busybox", "sh"]);
        let mut terminal = Terminal::open(command);
        terminal.shows("# ");
        terminal.type_in(b"tty; stty size; echo $TERM\r");
        terminal.shows("/dev/pts/0\r\n33 111\r\nxterm\r\n");
        terminal.type_in(b"exit 5\r");
        assert_eq!(terminal.code(), Some(5));
    }
}

#[test]
fn detaching_leaves_the_container_and_attaching_comes_back() {
    let daemon = TestDaemon::with_busybox();
    for (name, [mut first, mut second]) in [("one", commands(&daemon)), ("two", commands(&daemon))]
    {
        first.args(["run", "-it", "--name", name, "busybox", "sh"]);
        let mut terminal = Terminal::open(first);
        terminal.shows("# ");
        terminal.type_in(b"\x10\x11");
        assert_eq!(terminal.code(), Some(0));
        assert_eq!(daemon.inspect(name, ".State.Running"), "true");
        second.args(["attach", name]);
        let mut terminal = Terminal::open(second);
        terminal.type_in(b"\r");
        terminal.shows("# ");
        terminal.type_in(b"exit 6\r");
        assert_eq!(terminal.code(), Some(6));
    }
}

#[test]
fn an_exec_has_a_terminal_too() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-d", "--name", "host", "busybox", "sleep", "1000"]).ok();
    for mut command in commands(&daemon) {
        command.args(["exec", "-it", "host", "sh"]);
        let mut terminal = Terminal::open(command);
        terminal.shows("# ");
        terminal.type_in(b"stty size\r");
        terminal.shows("33 111\r\n");
        terminal.type_in(b"exit 4\r");
        assert_eq!(terminal.code(), Some(4));
    }
}
