//! Reading a capability envelope and the schema files beside it.

use std::path::Path;

use analyzer::policy::DeclaredEnvelope;
use anyhow::{Context as _, anyhow};
use schemas::envelope::Envelope;

/// Reads an envelope; the schema files that it names lie relative to it.
///
/// # Errors
/// Names the file, the line, the key, what was found and what was expected.
pub(crate) fn read(path: &Path) -> anyhow::Result<DeclaredEnvelope> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("envelope {} cannot be read", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let schema_file = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let envelope = Envelope::parse(&text, &schema_file)
        .map_err(|error| anyhow!(error).context(format!("envelope {} is refused", path.display())))?;
    Ok(DeclaredEnvelope::new(envelope))
}
