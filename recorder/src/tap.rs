//! Tap: a reverse proxy that forwards each exchange and copies it for the recorder.
//!
//! It forwards first and copies second. It never waits for the recorder, and no failure of the recorder reaches a
//! client.

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

use self::client::{ClientError, MAX_HEADER_BYTES};
use self::listener::{ListenerContext, RouteHandler};
use self::tls::TlsError;
use crate::capture::CaptureContext;
use crate::config::Config;

mod body;
mod client;
mod forward;
mod hop_by_hop;
mod listener;
mod tls;

/// Time limit for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause after a failed accept, which usually lacks file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Headers of one HTTP/1 request. Some gateways send more than the 100 that hyper allows by default.
const MAX_HEADERS: usize = 512;

/// An error that keeps the tap from opening.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The address of a route is not available.
    #[error(
        "route[{index}].listen {address} is not available ({source}); choose another address, or stop the process that uses it"
    )]
    Bind {
        /// Index of the route in the configuration.
        index: usize,
        /// `route.listen`.
        address: SocketAddr,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Certificate or key in `listen.tls`.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client of an upstream.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
    /// Indexes of its routes in the configuration.
    routes: Vec<usize>,
}

/// Bound address of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteAddress {
    /// Index of the route in the configuration.
    pub(crate) route: usize,
    pub(crate) address: SocketAddr,
}

/// Running tap.
#[derive(Debug)]
pub(crate) struct Tap {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Closes every connection when it is dropped.
    abort: DropGuard,
}

/// Binds the listeners of the configuration. Routes with the same `listen` share a listener, unless their paths are
/// equal too (only possible with port 0).
pub(crate) async fn bind(config: &Config) -> Result<(Vec<BoundListener>, Vec<RouteAddress>), TapError> {
    let mut bound: Vec<BoundListener> = Vec::new();
    let mut configured: Vec<String> = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let text = route.listen.to_string();
        let has_path =
            |bound: &BoundListener| bound.routes.iter().any(|other| config.routes[*other].path == route.path);
        let shared =
            bound.iter().zip(&configured).position(|(bound, listen)| *listen == text && !has_path(bound));
        if let Some(shared) = shared {
            bound[shared].routes.push(index);
            continue;
        }
        let address = route.listen.address();
        let failed = |source| TapError::Bind { index, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        bound.push(BoundListener { listener, address, routes: vec![index] });
        configured.push(text);
    }
    let mut addresses: Vec<RouteAddress> = bound
        .iter()
        .flat_map(|bound| {
            bound.routes.iter().map(|route| RouteAddress { route: *route, address: bound.address })
        })
        .collect();
    addresses.sort_by_key(|address| address.route);
    Ok((bound, addresses))
}

impl Tap {
    /// Serves the bound listeners.
    pub(crate) fn open(
        config: &Config,
        bound: Vec<BoundListener>,
        capture: &Arc<CaptureContext>,
    ) -> Result<Self, TapError> {
        let tls = config.listen.tls.as_ref().map(tls::acceptor).transpose()?;
        let (tasks, stop, abort) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let mut listeners = Vec::with_capacity(bound.len());
        for bound in bound {
            let mut handlers = Vec::with_capacity(bound.routes.len());
            for index in bound.routes {
                let route = Arc::new(config.routes[index].clone());
                handlers.push(RouteHandler { client: client::client(&route)?, route });
            }
            handlers.sort_by_key(|handler| std::cmp::Reverse(handler.route.path.as_str().len()));
            let context = ListenerContext {
                handlers,
                capture: Arc::clone(capture),
                tasks: tasks.clone(),
                abort: abort.clone(),
            };
            listeners.push((bound.listener, Arc::new(context)));
        }
        // Only now, so that an error above leaves no listener running.
        for (listener, context) in listeners {
            tasks.spawn(accept(listener, context, tls.clone(), stop.clone()));
        }
        Ok(Self { tasks, stop, abort: abort.drop_guard() })
    }

    /// Stops accepting, lets open exchanges end until the deadline, and closes the remaining connections.
    pub(crate) async fn close(self, deadline: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("closing connections that are still open at the deadline");
            drop(self.abort);
            self.tasks.wait().await;
        }
    }
}

async fn accept(
    listener: TcpListener,
    context: Arc<ListenerContext>,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    loop {
        // All branches are cancel-safe.
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = context.abort.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connect(stream, Arc::clone(&context), tls.clone(), stop.clone());
                context.tasks.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(
    stream: TcpStream,
    context: Arc<ListenerContext>,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    // With Nagle's algorithm the last small frame of a stream would wait for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let Some(tls) = tls else { return Box::pin(serve(stream, context, stop)).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => Box::pin(serve(stream, context, stop)).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    context: Arc<ListenerContext>,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).preserve_header_case(true);
    // A client may keep a connection idle for as long as it likes, so the time until the next head has no limit.
    let (mut http1, timer) = (builder.http1(), TokioTimer::new());
    http1.header_read_timeout(None).max_headers(MAX_HEADERS).auto_date_header(false).timer(timer.clone());
    builder.http2().max_header_list_size(MAX_HEADER_BYTES).auto_date_header(false).timer(timer);
    let service = service_fn({
        let context = Arc::clone(&context);
        move |request: hyper::Request<Incoming>| forward::forward(request, Arc::clone(&context))
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
            () = context.abort.cancelled() => return,
        }
    }
}
