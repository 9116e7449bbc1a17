//! Values that the connections of one listener share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Upstream;
use crate::capture::CaptureContext;
use crate::config::Route;

/// A route with the client of its upstream.
#[derive(Debug)]
pub(super) struct RouteHandler {
    pub(super) route: Arc<Route>,
    pub(super) client: Upstream,
}

/// The routes of one listener, and what its connections need.
#[derive(Debug)]
pub(super) struct ListenerContext {
    /// Longest path prefix first.
    pub(super) handlers: Vec<RouteHandler>,
    pub(super) capture: Arc<CaptureContext>,
    pub(super) tasks: TaskTracker,
    /// Closes connections that are still open at the drain deadline.
    pub(super) abort: CancellationToken,
}
