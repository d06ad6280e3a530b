//! What strangers may say on the socket.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use common::{Shim, blocking, shell};

#[tokio::test]
async fn garbage_ends_a_connection_and_nothing_else() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    let long = vec![b'C'; 200_000];
    let cases: [&[u8]; 9] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/1.1\r\n\r\ngarbage",
        b"CLEAT {\n",
        b"CLEAT {\"attach\":{}}\n",
        b"CLEAT {\"attach\":{\"exec_id\":\"none\"}}\n",
        b"Cxx\n",
        b"\0\0\0\x05\0\0\0\x01\x01\0hello",
        b"\0\xff\xff\xff\0\0\0\x02\x01\0",
        &long,
    ];
    for case in cases {
        let socket = shim.path("s");
        let case = case.to_owned();
        blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            // The shim may hang up early.
            let _ = stream.write_all(&case);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        })
        .await;
    }
    shim.stop(9, None).await;
    shim.finish().await;
}
