//! One request forwarded: find its route, copy it, pass it on, pass the answer back.
//!
//! The answer is what the upstream sent; ours are only 404 (no route) and 502 (no upstream), as of any plain proxy.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use schemas::exchange::Ending;

use super::body::{Answer, Tee, with_cause};
use super::{Door, Way, hop_by_hop};
use crate::capture::{Recording, RequestHead};
use crate::config::{Route, UpstreamHttp};

/// Answers one request.
pub(super) async fn forward(
    request: Request<Incoming>,
    door: Arc<Door>,
) -> Result<Response<Answer>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (path, session) = cut_session(&door, path);
    let way = door.ways.iter().find(|way| way.route.path.rest(&path).is_some());
    let Some(way) = way else {
        return Ok(own(StatusCode::NOT_FOUND, "no route of this listener begins this path\n"));
    };
    let Some(uri) = target(&way.route, &path) else {
        return Ok(own(StatusCode::BAD_REQUEST, "the path cannot be forwarded\n"));
    };
    if let Some(protocol) = hop_by_hop::upgrade(&parts.headers) {
        door.intake.sessions.count_upgraded();
        return Ok(Box::pin(upgrade(Request::from_parts(parts, body), uri, protocol, way, &door)).await);
    }
    let head = RequestHead {
        route: Arc::clone(&way.route),
        method: parts.method.clone(),
        path,
        headers: parts.headers.clone(),
        path_session: session,
    };
    let recording = Recording::start(&door.intake, head);
    let request = Request::from_parts(
        head_for_upstream(parts, uri, &way.route),
        Tee::request(body, Some(Arc::clone(&recording))),
    );
    match way.client.request(request).await {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            recording.response_head(parts.status, &parts.headers);
            parts.headers = hop_by_hop::forwarded(parts.headers);
            parts.version = Version::HTTP_11;
            Ok(Response::from_parts(parts, Answer::Upstream(Tee::response(body, Some(recording)))))
        }
        Err(error) => Ok(no_answer(&error, &recording)),
    }
}

fn no_answer(error: &hyper_util::client::legacy::Error, recording: &Recording) -> Response<Answer> {
    let detail = with_cause(error);
    tracing::debug!(detail, "no answer from an upstream");
    if recording.request_broke() {
        recording.end(Ending::Cancelled, Some("the client went away within its request".to_owned()));
    } else {
        recording.end(Ending::Failed, Some(format!("{detail}; the client got status 502")));
    }
    own(StatusCode::BAD_GATEWAY, "the upstream gave no answer\n")
}

/// The session's name out of a path that begins with the configured marker, and the path without both.
fn cut_session(door: &Door, path: &str) -> (String, Option<String>) {
    let found = door.intake.session_config.session_path_prefix.rest(path).and_then(|rest| {
        let rest = rest.strip_prefix('/')?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (session, rest) = rest.split_at(end);
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        (!session.is_empty()).then(|| (rest, Some(session.to_owned())))
    });
    found.unwrap_or_else(|| (path.to_owned(), None))
}

/// Where the request goes: the upstream, its own path, and what is left of the request's.
fn target(route: &Route, path: &str) -> Option<Uri> {
    let rest = if route.strip_path { route.path.rest(path)? } else { path };
    let slash = if rest.starts_with('/') || (rest.is_empty() && !route.upstream.base().is_empty()) {
        ""
    } else {
        "/"
    };
    let path = PathAndQuery::try_from(format!("{}{slash}{rest}", route.upstream.base())).ok()?;
    let mut parts = route.upstream.uri().clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

fn head_for_upstream(mut parts: Parts, uri: Uri, route: &Route) -> Parts {
    parts.headers = hop_by_hop::forwarded(parts.headers);
    let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    match (authority, parts.headers.get_mut(HOST)) {
        // The name that the upstream's certificate and virtual hosts go by; in HTTP/2 it is in the pseudo-header.
        (Some(authority), Some(host)) if route.upstream_http != UpstreamHttp::Http2 => *host = authority,
        (_, Some(_)) => {
            parts.headers.remove(HOST);
        }
        (_, None) => {}
    }
    parts.uri = uri;
    parts.version =
        if route.upstream_http == UpstreamHttp::Http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    parts
}

/// Passes an upgrade (WebSocket) through, unrecorded.
async fn upgrade(
    mut request: Request<Incoming>,
    uri: Uri,
    protocol: HeaderValue,
    way: &Way,
    door: &Arc<Door>,
) -> Response<Answer> {
    let client_side = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut parts = head_for_upstream(parts, uri, &way.route);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol);
    let request = Request::from_parts(parts, Tee::request(body, None));
    let mut response = match way.client.request(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "no answer to an upgrade");
            return own(StatusCode::BAD_GATEWAY, "the upstream gave no answer\n");
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        parts.headers = hop_by_hop::forwarded(parts.headers);
        return Response::from_parts(parts, Answer::Upstream(Tee::response(body, None)));
    }
    let upstream_side = hyper::upgrade::on(&mut response);
    let abort = door.abort.clone();
    door.tasks.spawn(async move {
        let (Ok(client), Ok(upstream)) = tokio::join!(client_side, upstream_side) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        // Neither branch is resumed after the other ends.
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
                if let Err(error) = copied {
                    tracing::debug!(%error, "an upgraded connection ended early");
                }
            }
            () = abort.cancelled() => {}
        }
    });
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, Answer::Own(None))
}

fn own(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Some(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn target_of(lines: &str, path: &str) -> String {
        let text = format!(
            "agent = \"a\"\nstore = \"s\"\nstate-dir = \"d\"\n[[route]]\nedge = \"model\"\nlisten = \"127.0.0.1:0\"\n{lines}"
        );
        let route = Config::parse(&text).expect("a good configuration").routes.remove(0);
        target(&route, path).expect("a target").to_string()
    }

    #[test]
    fn paths_are_put_together() {
        let plain = "upstream = \"http://up\"";
        assert_eq!(target_of(plain, "/v1/x?y=1"), "http://up/v1/x?y=1");
        let base = "upstream = \"http://up/base/\"\npath = \"/openai\"\nstrip-path = true";
        assert_eq!(target_of(base, "/openai/v1?y"), "http://up/base/v1?y");
        assert_eq!(target_of(base, "/openai"), "http://up/base");
        assert_eq!(
            target_of("upstream = \"http://up\"\npath = \"/m\"\nstrip-path = true", "/m?x"),
            "http://up/?x"
        );
    }
}
