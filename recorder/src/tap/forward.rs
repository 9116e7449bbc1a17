//! Forwards one request: finds its route, starts the recording, and returns the response of the upstream.
//!
//! The tap responds itself only with 400 (path cannot be forwarded), 404 (no route) and 502 (no response), like any
//! reverse proxy.

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

use super::body::{ResponseBody, TapBody, with_cause};
use super::hop_by_hop::{strip_hop_by_hop, upgrade_protocol};
use super::listener::{ListenerContext, RouteHandler};
use crate::capture::{Recording, RequestHead};
use crate::config::values::PathPrefix;
use crate::config::{Route, UpstreamHttp};

/// Handles one request.
pub(super) async fn forward(
    request: Request<Incoming>,
    context: Arc<ListenerContext>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (path, session) = extract_path_session(&context.capture.session_config.session_path_prefix, path);
    let handler = context.handlers.iter().find(|handler| handler.route.path.rest(&path).is_some());
    let Some(handler) = handler else {
        let text = "no route of this listener has a prefix of this path\n";
        return Ok(synthetic_response(StatusCode::NOT_FOUND, text));
    };
    let Some(uri) = target(&handler.route, &path) else {
        return Ok(synthetic_response(StatusCode::BAD_REQUEST, "the path cannot be forwarded\n"));
    };
    if let Some(protocol) = upgrade_protocol(&parts.headers) {
        context.capture.accounts.sessions.count_upgraded();
        let request = Request::from_parts(parts, body);
        return Ok(Box::pin(upgrade(request, uri, protocol, handler, &context)).await);
    }
    let head = RequestHead {
        route: Arc::clone(&handler.route),
        method: parts.method.clone(),
        path,
        headers: parts.headers.clone(),
        path_session: session,
    };
    let recording = Recording::start(&context.capture, head);
    let request = Request::from_parts(
        upstream_head(parts, uri, &handler.route),
        TapBody::request(body, Some(Arc::clone(&recording))),
    );
    match handler.client.request(request).await {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            recording.response_head(parts.status, &parts.headers);
            parts.headers = strip_hop_by_hop(parts.headers);
            parts.version = Version::HTTP_11;
            Ok(Response::from_parts(parts, ResponseBody::Upstream(TapBody::response(body, Some(recording)))))
        }
        Err(error) => Ok(bad_gateway(&error, &recording)),
    }
}

/// Ends the recording of a request without a response.
fn bad_gateway(error: &hyper_util::client::legacy::Error, recording: &Recording) -> Response<ResponseBody> {
    let detail = with_cause(error);
    tracing::debug!(detail, "no response from an upstream");
    if recording.request_aborted() {
        recording.end(Ending::Cancelled, Some("the client aborted its request".to_owned()));
    } else {
        recording.end(Ending::Failed, Some(format!("{detail}; the tap responded with status 502")));
    }
    synthetic_response(StatusCode::BAD_GATEWAY, "no response from the upstream\n")
}

/// Splits `PREFIX/SESSION/REST` into `/REST` and the session name. A path without the prefix stays as it is.
fn extract_path_session(prefix: &PathPrefix, path: &str) -> (String, Option<String>) {
    let found = prefix.rest(path).and_then(|rest| {
        let rest = rest.strip_prefix('/')?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (session, rest) = rest.split_at(end);
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        (!session.is_empty()).then(|| (rest, Some(session.to_owned())))
    });
    found.unwrap_or_else(|| (path.to_owned(), None))
}

/// Upstream URI: the path of the upstream, then the path of the request.
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

/// The request head for the upstream: its host and HTTP version, no hop-by-hop headers.
fn upstream_head(mut parts: Parts, uri: Uri, route: &Route) -> Parts {
    parts.headers = strip_hop_by_hop(parts.headers);
    let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    match (authority, parts.headers.get_mut(HOST)) {
        // Virtual hosts need the host name of the upstream. HTTP/2 has it in a pseudo-header.
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

/// Forwards an upgraded connection (WebSocket) without a recording.
async fn upgrade(
    mut request: Request<Incoming>,
    uri: Uri,
    protocol: HeaderValue,
    handler: &RouteHandler,
    context: &Arc<ListenerContext>,
) -> Response<ResponseBody> {
    let client_side = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut parts = upstream_head(parts, uri, &handler.route);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol);
    let request = Request::from_parts(parts, TapBody::request(body, None));
    let mut response = match handler.client.request(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "no response to an upgrade");
            return synthetic_response(StatusCode::BAD_GATEWAY, "no response from the upstream\n");
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        parts.headers = strip_hop_by_hop(parts.headers);
        return Response::from_parts(parts, ResponseBody::Upstream(TapBody::response(body, None)));
    }
    let upstream_side = hyper::upgrade::on(&mut response);
    let abort = context.abort.clone();
    context.tasks.spawn(async move {
        let (Ok(client), Ok(upstream)) = tokio::join!(client_side, upstream_side) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        // Neither branch continues after the other ends.
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
    Response::from_parts(parts, ResponseBody::Synthetic(None))
}

fn synthetic_response(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Synthetic(Some(Bytes::from_static(text.as_bytes()))));
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
    fn the_upstream_path_comes_before_the_request_path() {
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
