//! `GET /containers/{name}/logs`. A log that is followed is the shim's to send: see [`crate::engine::GrowingLog`].

use std::{io, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};

use cleat_proto::log::LogOptions;
use http::{HeaderValue, Version, header};
use tokio::io::AsyncWriteExt as _;

use super::{
    body,
    error::{Error, Result},
    hijack::{self, RAW, Socket, Taken, Upgrade, media_type},
    query::{Query, parse_go_int},
    time,
    version::{self, ApiVersion},
};
use crate::{
    container::names::ContainerRef,
    engine::{Engine, GrowingLog, LogReader},
};

/// The route.
pub fn routes() -> Router<Engine> {
    Router::new().route("/containers/{name}/logs", get(logs))
}

/// Pieces that wait for a client: with one that does not read, that is what it costs.
const QUEUE: usize = 1;
/// How long a client may take to hang up after it has got everything.
const LINGER: Duration = Duration::from_secs(2);

async fn logs(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    version: ApiVersion,
    http: Version,
    socket: Socket,
) -> Result {
    let (name, options) = (ContainerRef(name), options(&query)?);
    if options.follow
        && let Some(log) = engine.growing_log(&name, options.clone()).await?
    {
        let head = head(media_type(log.tty, version), http);
        let held = move || engine.logs(&name, options);
        let chunked = http >= Version::HTTP_11;
        return Ok(socket
            .take(async move |taken| follow(taken, &head, log, chunked, held).await)
            .await);
    }
    let mut reader = engine.logs(&name, options)?;
    let media_type = if reader.tty { RAW } else { media_type(false, version) };
    let (sender, stream) = body::channel(QUEUE);
    tokio::spawn(async move {
        let pump = async {
            loop {
                match reader.next().await {
                    Ok(Some(piece)) => {
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a log cannot be read to its end");
                        return sender.clone().abort(error).await;
                    }
                }
            }
        };
        tokio::select! {
            () = pump => {}
            () = sender.closed() => {}
            () = socket.gone() => {}
        }
    });
    Ok(body::stream(media_type, stream))
}

/// The response head, as HTTP would write it for a body of unknown length.
fn head(media_type: &str, http: Version) -> String {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new();
    let date = date.timestamp_to_rfc9110_string(&jiff::Timestamp::now()).unwrap_or_default();
    let (name, value) = match http >= Version::HTTP_11 {
        true => (header::TRANSFER_ENCODING, "chunked"),
        false => (header::CONNECTION, "close"),
    };
    let mut more: Vec<_> = version::all_headers().into_iter().collect();
    more.extend(HeaderValue::try_from(date).map(|date| (header::DATE, date)));
    more.push((name, HeaderValue::from_static(value)));
    hijack::head(Upgrade(false), media_type, &more)
}

/// Gives the client to the shim. If the container has ended meanwhile, the log is whole, and ours to send.
async fn follow(
    taken: Taken,
    head: &str,
    log: GrowingLog,
    chunked: bool,
    held: impl FnOnce() -> Result<LogReader, crate::engine::Error>,
) {
    let handed = async {
        taken.write(head.as_bytes())?;
        let client = taken.fd.try_clone()?;
        match log.hand_over(client, chunked).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(error = error.whole(), "a log does not grow any more");
                let log = held().map_err(|error| io::Error::other(error.whole()))?;
                write_log(taken, "", Some(log), chunked).await
            }
        }
    };
    if let Err(error) = handed.await {
        tracing::debug!(%error, "a log was not read to its end");
    }
}

/// Sends what a log holds, if there is one, and the end.
///
/// # Errors
/// If the log cannot be read, or the client is gone.
pub async fn write_log(
    taken: Taken,
    head: &str,
    log: Option<LogReader>,
    chunked: bool,
) -> io::Result<()> {
    let mut client = taken.into_stream()?;
    client.write_all(head.as_bytes()).await?;
    if let Some(mut log) = log {
        while let Some(piece) = log.next().await? {
            if chunked {
                client.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            client.write_all(&piece).await?;
            if chunked {
                client.write_all(b"\r\n").await?;
            }
        }
    }
    if chunked {
        client.write_all(b"0\r\n\r\n").await?;
    }
    // The client may still be closing its side: to hang up before it does would be an error there.
    client.shutdown().await?;
    let mut nobody = tokio::io::sink();
    let hung_up = tokio::io::copy(&mut client, &mut nobody);
    tokio::time::timeout(LINGER, hung_up).await.unwrap_or(Ok(0)).map(drop)
}

fn options(query: &Query) -> Result<LogOptions, Error> {
    let (stdout, stderr) = (query.bool("stdout"), query.bool("stderr"));
    if !stdout && !stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let time = |key: &str| {
        query
            .optional(key)
            .map(|text| time::unix_seconds(text).map_err(Error::internal))
            .transpose()
    };
    // Whatever is no number is "all", as Docker has it.
    let tail = parse_go_int(query.get("tail")).ok().and_then(|tail| usize::try_from(tail).ok());
    Ok(LogOptions {
        stdout,
        stderr,
        follow: query.bool("follow"),
        since: time("since")?.filter(|since| *since != 0),
        until: time("until")?.filter(|until| *until != 0),
        timestamps: query.bool("timestamps"),
        details: query.bool("details"),
        tail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<LogOptions, Error> {
        options(&Query::parse(query).unwrap())
    }

    #[test]
    fn a_stream_must_be_chosen() {
        let error = read("follow=1").unwrap_err();
        assert_eq!(error.message(), "Bad parameters: you must choose at least one stream");
    }

    #[test]
    fn a_tail_that_is_no_number_is_all() {
        for (text, tail) in
            [("2", Some(2)), ("0", Some(0)), ("all", None), ("x", None), ("-1", None), ("", None)]
        {
            assert_eq!(read(&format!("stdout=1&tail={text}")).unwrap().tail, tail, "{text}");
        }
    }

    #[test]
    fn times_have_a_fraction_or_fail_as_gos() {
        assert_eq!(read("stdout=1&since=1.5&until=0").unwrap().since, Some(1_500_000_000));
        assert_eq!(
            read("stdout=1&since=bad").unwrap_err().message(),
            "strconv.ParseInt: parsing \"bad\": invalid syntax"
        );
    }
}
