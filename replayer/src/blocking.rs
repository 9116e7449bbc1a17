//! Runs work on a blocking thread, so that it does not delay other tasks of an async thread.

/// Runs `work` on a blocking thread and waits for its result. A panic of `work` continues in the caller.
pub(crate) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the shutdown of the runtime cancels blocking work, and it drops this task as well.
            Err(_) => std::future::pending().await,
        },
    }
}
