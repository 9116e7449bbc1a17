//! The reverse proxy: listeners in front, upstreams behind, a copy of every exchange on the side.
//!
//! Forward first, copy second. Nothing here waits for the recorder, and no failure of the recorder reaches a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::capture::Intake;
use crate::config::{Config, Route};

use self::client::ClientError;
use self::tls::TlsError;

mod body;
mod client;
mod forward;
mod hop_by_hop;
mod tls;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait after an accept failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Headers of one HTTP/1 request; hyper's own default of 100 refuses what some gateways send.
const MAX_HEADERS: usize = 512;

/// Headers of one HTTP/2 request or answer, in bytes; the default of 16 KiB refuses what passes without the tap.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// A tap that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// An address that cannot be listened on.
    #[error(
        "route[{place}].listen {address} cannot be listened on ({source}); choose another address, or stop what uses it"
    )]
    Bind {
        /// Which route asked for it.
        place: usize,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The way to an upstream.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A route with its way to the upstream.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) route: Arc<Route>,
    pub(crate) client: client::Upstream,
}

/// What the connections of one listener share.
#[derive(Debug)]
pub(crate) struct Door {
    /// Longest path first.
    pub(crate) ways: Vec<Way>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) tasks: TaskTracker,
    /// Ends what is still open after the drain.
    pub(crate) abort: CancellationToken,
}

/// One listener that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    /// The routes by their place in the configuration.
    routes: Vec<usize>,
}

/// Where a route can be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    pub(crate) route: usize,
    pub(crate) address: SocketAddr,
}

/// The open tap.
#[derive(Debug)]
pub(crate) struct Tap {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Breaks off what is open, at the latest when the tap is dropped.
    abort: DropGuard,
}

/// Binds every listener of the configuration.
pub(crate) async fn bind(config: &Config) -> Result<(Vec<Bound>, Vec<Reached>), TapError> {
    let mut bound: Vec<Bound> = Vec::new();
    let mut asked: Vec<String> = Vec::new();
    for (place, route) in config.routes.iter().enumerate() {
        let text = route.listen.to_string();
        let taken = |bound: &Bound| bound.routes.iter().any(|other| config.routes[*other].path == route.path);
        let shared = bound.iter().zip(&asked).position(|(bound, asked)| *asked == text && !taken(bound));
        if let Some(shared) = shared {
            bound[shared].routes.push(place);
            continue;
        }
        let address = route.listen.address();
        let failed = |source| TapError::Bind { place, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        bound.push(Bound { listener, address, routes: vec![place] });
        asked.push(text);
    }
    let mut reached: Vec<Reached> = bound
        .iter()
        .flat_map(|bound| bound.routes.iter().map(|route| Reached { route: *route, address: bound.address }))
        .collect();
    reached.sort_by_key(|reached| reached.route);
    Ok((bound, reached))
}

impl Tap {
    /// Serves what is bound.
    pub(crate) fn open(config: &Config, bound: Vec<Bound>, intake: &Arc<Intake>) -> Result<Self, TapError> {
        let tls = config.listen.tls.as_ref().map(tls::acceptor).transpose()?;
        let (tasks, stop, abort) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let mut doors = Vec::with_capacity(bound.len());
        for bound in bound {
            let mut ways = Vec::with_capacity(bound.routes.len());
            for place in bound.routes {
                let route = Arc::new(config.routes[place].clone());
                ways.push(Way { client: client::client(&route)?, route });
            }
            ways.sort_by_key(|way| std::cmp::Reverse(way.route.path.as_str().len()));
            let door = Door { ways, intake: Arc::clone(intake), tasks: tasks.clone(), abort: abort.clone() };
            doors.push((bound.listener, Arc::new(door)));
        }
        for (listener, door) in doors {
            tasks.spawn(accept(listener, door, tls.clone(), stop.clone()));
        }
        Ok(Self { tasks, stop, abort: abort.drop_guard() })
    }

    /// Stops taking connections, lets open exchanges end until the deadline, and breaks off what is left.
    pub(crate) async fn close(self, deadline: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("connections are still open at the deadline and are closed");
            drop(self.abort);
            self.tasks.wait().await;
        }
    }
}

async fn accept(listener: TcpListener, door: Arc<Door>, tls: Option<TlsAcceptor>, stop: CancellationToken) {
    loop {
        // All branches are cancel-safe.
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = door.abort.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connect(stream, Arc::clone(&door), tls.clone(), stop.clone());
                door.tasks.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(stream: TcpStream, door: Arc<Door>, tls: Option<TlsAcceptor>, stop: CancellationToken) {
    // Without it the last small frame of a stream waits for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no-delay cannot be set");
    }
    let Some(tls) = tls else { return Box::pin(serve(stream, door, stop)).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => Box::pin(serve(stream, door, stop)).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    door: Arc<Door>,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).preserve_header_case(true);
    // A connection that is kept alive is idle for as long as its client likes: the time to the next head is no limit.
    let (mut http1, timer) = (builder.http1(), TokioTimer::new());
    http1.header_read_timeout(None).max_headers(MAX_HEADERS).auto_date_header(false).timer(timer.clone());
    builder.http2().max_header_list_size(MAX_HEADER_BYTES).auto_date_header(false).timer(timer);
    let service = service_fn({
        let door = Arc::clone(&door);
        move |request: hyper::Request<Incoming>| forward::forward(request, Arc::clone(&door))
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    loop {
        // All branches are cancel-safe: the connection keeps its state between polls.
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended early");
                }
                return;
            }
            () = stop.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = door.abort.cancelled() => return,
        }
    }
}
