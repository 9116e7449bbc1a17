//! The agent's model calls: OpenAI chat completions, plain or streamed.

use anyhow::Context as _;
use hyper::header::HeaderName;
use serde_json::{Value, json};
use wire::openai_chat::{ChatAnswer, ChatChoice};

use crate::http::HttpClient;

/// Calls the model and returns its message.
pub(super) async fn complete(
    client: &HttpClient,
    base_url: &str,
    headers: &[(HeaderName, String)],
    messages: &[Value],
    tools: &Value,
    stream: bool,
) -> anyhow::Result<ChatChoice> {
    let mut body = json!({"model": "shop-model", "messages": messages, "tools": tools});
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    let reply = client.post(&format!("{base_url}/chat/completions"), headers, &body).await?;
    if !reply.status.is_success() {
        let text: String = String::from_utf8_lossy(&reply.body).chars().take(200).collect();
        anyhow::bail!("the model responded {}: {text}", reply.status);
    }
    let answer = ChatAnswer::from_body(&reply.body).context("the model's response is no chat completion")?;
    anyhow::ensure!(answer.malformed_events() == 0, "an event of the model's response is not JSON");
    let choice = answer.first_choice().context("the model's response has no choice")?;
    anyhow::ensure!(choice.finish_reason.is_some(), "the model's response ended early");
    Ok(choice.clone())
}
