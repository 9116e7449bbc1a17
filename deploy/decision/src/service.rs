//! The entry point: reads both runs, decides, writes the output files.

use analyzer::report::{ReportInput, ReportMeta, Transcripts, hide_forbidden, transcript_sessions};
use analyzer::{Analysis, Policy, Run};

use crate::error::DecisionError;
use crate::request::{DecisionRequest, LookPlan};
use crate::{comparability, output_files, run_reader, transcripts};

/// Reads both runs, decides, and writes all output files or none.
///
/// # Errors
/// Runs that cannot be compared or read, a policy that the data cannot satisfy, an output folder that cannot be written.
pub async fn decide(request: &DecisionRequest) -> Result<Analysis, DecisionError> {
    output_files::check(&request.out)?;
    let invariants = &request.policy.invariant;
    let mut baseline = run_reader::read_run(&request.baseline, &request.keys, invariants).await?;
    let mut candidate = run_reader::read_run(&request.candidate, &request.keys, invariants).await?;
    let mut recorded = match &request.recorded {
        Some(location) => Some(run_reader::read_run(location, &request.keys, invariants).await?),
        None => None,
    };
    let mut reference = match request.reference.as_ref().or(request.policy.reference.run.as_ref()) {
        Some(location) => Some(run_reader::read_run(location, &request.keys, invariants).await?),
        None => None,
    };
    let mut runs = vec![&mut baseline, &mut candidate];
    runs.extend(recorded.as_mut());
    runs.extend(reference.as_mut());
    analyzer::unify_effects(&mut runs);
    let mut others = vec![&mut candidate];
    others.extend(recorded.as_mut());
    others.extend(reference.as_mut());
    analyzer::compare_arguments(&request.policy, &mut baseline, &mut others);
    comparability::check(&mut baseline, &mut candidate).map_err(DecisionError::Input)?;
    let for_thread = request.clone();
    let decided = tokio::task::spawn_blocking(move || {
        let DecisionRequest { policy, seed, looks, calibration, .. } = for_thread;
        let request_for_analyzer = analyzer::AnalysisRequest {
            recorded: recorded.as_ref(),
            monitoring: looks.monitoring(),
            corpus_cases: looks.corpus_cases(),
            calibration: calibration.as_ref(),
            reference: reference.as_ref(),
            ..analyzer::AnalysisRequest::new(&policy, &baseline, &candidate, seed)
        };
        let analysis = analyzer::analyze(&request_for_analyzer).map_err(DecisionError::input)?;
        Ok::<_, DecisionError>(Decided { baseline, candidate, recorded, policy, analysis })
    });
    let decided = decided.await.map_err(panicked)??;
    write(decided, request).await
}

/// The analysis with the runs and the policy that its report shows.
struct Decided {
    baseline: Run,
    candidate: Run,
    recorded: Option<Run>,
    policy: Policy,
    analysis: Analysis,
}

impl Decided {
    /// Hides what the policy forbids from everything that the report shows.
    fn hide_forbidden(&mut self, transcripts: &mut Transcripts) {
        let mut runs = vec![&mut self.baseline, &mut self.candidate];
        runs.extend(self.recorded.as_mut());
        hide_forbidden(&self.policy, &mut runs, transcripts);
    }

    fn report_input<'a>(&'a self, transcripts: &'a Transcripts) -> ReportInput<'a> {
        ReportInput {
            baseline: &self.baseline,
            candidate: &self.candidate,
            recorded: self.recorded.as_ref(),
            policy: &self.policy,
            transcripts,
        }
    }
}

/// Writes the output files with the transcripts of the sessions that the report shows.
async fn write(mut decided: Decided, request: &DecisionRequest) -> Result<Analysis, DecisionError> {
    let sessions = transcript_sessions(&decided.analysis, &decided.report_input(&Transcripts::new()))
        .map_err(DecisionError::failed)?;
    let mut transcripts = transcripts::read(request, &sessions).await?;
    let meta = ReportMeta { title: String::new(), commands: vec![command_line(request)] };
    let (out, clock) = (request.out.clone(), request.clock);
    let written = tokio::task::spawn_blocking(move || {
        decided.hide_forbidden(&mut transcripts);
        output_files::write(&out, &decided.analysis, &decided.report_input(&transcripts), &meta, clock())
            .map_err(DecisionError::Failed)?;
        Ok(decided.analysis)
    });
    written.await.map_err(panicked)?
}

fn panicked(error: tokio::task::JoinError) -> DecisionError {
    DecisionError::Failed(anyhow::Error::new(error).context("the decision panicked"))
}

/// The command that reproduces the verdict. The request has the contents of a policy and not its path, so the command
/// names a placeholder.
fn command_line(request: &DecisionRequest) -> String {
    let mut words = vec!["foreshadow analyze --baseline".to_owned(), shell_word(&request.baseline)];
    words.extend(["--candidate".to_owned(), shell_word(&request.candidate)]);
    if let Some(recorded) = &request.recorded {
        words.extend(["--recorded".to_owned(), shell_word(recorded)]);
    }
    if let Some(reference) = &request.reference {
        words.extend(["--reference".to_owned(), shell_word(reference)]);
    }
    let declared_envelope = request.policy.invariant.declared_envelope.clone();
    let mut policy = Policy::default();
    policy.invariant.declared_envelope.clone_from(&declared_envelope);
    if request.policy != policy {
        words.push("--policy POLICY.toml".to_owned());
    }
    match &request.looks {
        LookPlan::Planned(looks) => words.push(format!("--looks {looks}")),
        LookPlan::Anytime => words.push("--anytime".to_owned()),
        LookPlan::Once => {}
        LookPlan::Waves(state) => return state.command.clone(),
    }
    if declared_envelope.is_some() {
        words.push("--envelope ENVELOPE.toml".to_owned());
    }
    words.extend([format!("--seed {} --out", request.seed), shell_word(&request.out.display().to_string())]);
    words.join(" ")
}

/// Quotes a word for a POSIX shell.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
