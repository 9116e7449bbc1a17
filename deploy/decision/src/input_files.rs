//! Reads the input files of a decision: policy, calibration, capability envelope.

use std::path::Path;

use analyzer::Policy;
use analyzer::policy::DeclaredEnvelope;
use analyzer::verdict::{CALIBRATION_FORMAT, Calibration};
use anyhow::{Context as _, anyhow};
use envelope::Envelope;

use crate::error::DecisionError;

/// Reads a policy; without a path, the default policy.
///
/// # Errors
/// The file cannot be read, or a key of it is refused: the error names the file, the key and the expected value.
pub fn read_policy(path: Option<&Path>) -> Result<Policy, DecisionError> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("policy {} cannot be read", path.display()))
        .map_err(DecisionError::Input)?;
    Policy::parse(&text)
        .map_err(|error| anyhow!(error).context(format!("policy {} is refused", path.display())))
        .map_err(DecisionError::Input)
}

/// Reads the file that `foreshadow calibrate --out` wrote.
///
/// # Errors
/// The file cannot be read, is not a calibration, or has another format version.
pub fn read_calibration(path: Option<&Path>) -> Result<Option<Calibration>, DecisionError> {
    let Some(path) = path else { return Ok(None) };
    let read = || -> anyhow::Result<Calibration> {
        let text = std::fs::read_to_string(path).context("the file cannot be read")?;
        let found: Calibration = serde_json::from_str(&text)
            .context("the file is not a calibration; write one with `foreshadow calibrate --out FILE`")?;
        if found.format != CALIBRATION_FORMAT {
            anyhow::bail!(
                "the file has format {}, this build reads {CALIBRATION_FORMAT}; write it again with \
                 `foreshadow calibrate --out FILE`",
                found.format
            );
        }
        Ok(found)
    };
    let read = read().with_context(|| format!("calibration {} cannot be used", path.display()));
    read.map(Some).map_err(DecisionError::Input)
}

/// Reads a capability envelope and the schema files that it names, relative to its folder.
///
/// # Errors
/// The error names the file, the line, the key, the value found and the value expected.
pub fn read_envelope(path: &Path) -> Result<DeclaredEnvelope, DecisionError> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("envelope {} cannot be read", path.display()))
        .map_err(DecisionError::Input)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let schema_file = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let envelope = Envelope::parse(&text, &schema_file)
        .map_err(|error| anyhow!(error).context(format!("envelope {} is refused", path.display())))
        .map_err(DecisionError::Input)?;
    Ok(DeclaredEnvelope::new(envelope))
}
