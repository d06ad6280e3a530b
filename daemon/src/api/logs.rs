//! `GET /containers/{name}/logs`.

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};

use super::{
    body,
    error::{Error, Result},
    hijack::{RAW, Socket, media_type},
    query::{Query, parse_go_int},
    time,
    version::ApiVersion,
};
use crate::{
    container::names::ContainerRef,
    engine::{Engine, LogOptions},
};

/// The route.
pub fn routes() -> Router<Engine> {
    Router::new().route("/containers/{name}/logs", get(logs))
}

/// Pieces that wait for a client: with one that does not read, that is what it costs.
const QUEUE: usize = 1;

async fn logs(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    query: Query,
    version: ApiVersion,
    socket: Socket,
) -> Result {
    let mut reader = engine.logs(&ContainerRef(name), options(&query)?)?;
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
