//! The output files of a verdict: written under temporary names, then renamed together.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use analyzer::Analysis;
use analyzer::report::{ReportInput, ReportMeta, junit_xml, otlp_json, report_html, summary_md};
use anyhow::{Context as _, anyhow};

use crate::error::DecisionError;

/// Refuses an output folder that is a file, before any run is read.
pub(crate) fn check(out: &Path) -> Result<(), DecisionError> {
    if out.exists() && !out.is_dir() {
        return Err(DecisionError::input(anyhow!("--out {} is a file; name a folder", out.display())));
    }
    Ok(())
}

/// Writes all output files, or none.
pub(crate) fn write(
    out: &Path,
    analysis: &Analysis,
    input: &ReportInput<'_>,
    meta: &ReportMeta,
    now_micros: i64,
) -> anyhow::Result<()> {
    let mut verdict = serde_json::to_string_pretty(&analysis.verdict)
        .context("the verdict cannot be serialised as JSON")?;
    verdict.push('\n');
    let files = [
        ("report.html", report_html(analysis, input, meta).map_err(anyhow::Error::new)?),
        ("summary.md", summary_md(analysis, input, meta).map_err(anyhow::Error::new)?),
        ("junit.xml", junit_xml(analysis).map_err(anyhow::Error::new)?),
        ("otlp.json", otlp_json(analysis, input, nanos(now_micros))),
        // The last one: if verdict.json exists, the other files exist.
        ("verdict.json", verdict),
    ];
    std::fs::create_dir_all(out).with_context(|| format!("folder {} cannot be created", out.display()))?;
    let mut staged: Vec<(PathBuf, PathBuf)> = Vec::new();
    let result = stage_and_rename(out, &files, &mut staged);
    if result.is_err() {
        for (temporary, _) in staged {
            // A file that was already renamed has no temporary name any more.
            let _ = std::fs::remove_file(temporary);
        }
    }
    result
}

fn nanos(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default().saturating_mul(1000)
}

fn stage_and_rename(
    out: &Path,
    files: &[(&str, String)],
    staged: &mut Vec<(PathBuf, PathBuf)>,
) -> anyhow::Result<()> {
    for (name, text) in files {
        let temporary = out.join(format!(".{name}.{}.partial", std::process::id()));
        staged.push((temporary.clone(), out.join(name)));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.with_context(|| format!("{} cannot be written", temporary.display()))?;
    }
    for (temporary, path) in staged.iter() {
        std::fs::rename(temporary, path).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
