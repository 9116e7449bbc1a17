//! What a replay and a gate need from the process: environment, keys, a new id, the clock.

use anyhow::Context as _;
use gating::Resources;
use schemas::id::IncarnationId;

use crate::clock;
use crate::context::{Context, env};
use crate::exit::Failure;

/// Collects the resources of a replay.
pub(crate) fn resources(context: &Context<'_>) -> Result<Resources<'static>, Failure> {
    let incarnation = IncarnationId::parse(&uuid::Uuid::new_v4().to_string());
    Ok(Resources {
        env: &env,
        keys: context.key_ring()?,
        root_key: context.root_key()?,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: incarnation.context("a new incarnation id is refused")?,
        clock: clock::now_micros,
    })
}
