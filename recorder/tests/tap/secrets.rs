//! A secret that passes the tap appears nowhere on disk.

use std::path::Path;

use crate::harness::{Fixture, LAST_CHUNK, STREAM_HEAD, Step, Upstream, chunk, post, route};

const PLANTED: [&str; 6] = [
    "Bearer-in-header-0123456789",
    "sk-proj-PLANTEDplanted0123456789",
    "AIzaSyPlantedPlantedPlantedPlanted01234",
    "hunter2-in-the-query",
    "sk-proj-PLANTEDafterAnewline0123",
    "ghp_PLANTEDafterAtabInArguments0123456",
];

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn assert_no_secret_on_disk(folder: &Path) {
    let mut found = Vec::new();
    files(folder, &mut found);
    assert!(found.len() > 3, "journal and Parquet files exist");
    for path in found {
        let bytes = std::fs::read(&path).expect("a file");
        for secret in PLANTED {
            let hit = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!hit, "{secret} is in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_do_not_reach_the_disk() {
    let [header, key, google, query, newline, tab] = PLANTED;
    // The key of the response is split over three deltas.
    let deltas: String =
        ["see ", &key[..9], &key[9..20], &key[20..], " done", "\\n", &newline[..5], &newline[5..]]
            .iter()
            .map(|text| {
                format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
            })
            .collect();
    let frames = deltas + "data: [DONE]\n\n";
    let script = vec![Step::Read, Step::Send([STREAM_HEAD, &chunk(&frames), LAST_CHUNK].concat())];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "protocol = \"openai-chat\"")).await;
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"my keys are {key} and {google}, keep them well away from disks"}},{{"role":"user","content":"this one too:\n{newline}\r\n{tab}"}},{{"role":"assistant","tool_calls":[{{"id":"c","type":"function","function":{{"name":"save","arguments":"{{\"keys\":\"\\n{newline}\\t{tab}\"}}"}}}}]}}]}}"#
    );
    let headers = format!(
        "Authorization: Bearer {header}\r\nX-Api-Key: {key}\r\nX-Session-Id: {key}\r\nUser-Agent: {key}\r\n"
    );
    let reply = fixture.send(0, &post(&format!("/v1?token={query}"), &headers, &body)).await;
    assert_eq!(reply.text(), frames, "the client receives the bytes of the upstream");
    let sent = upstream.requests().await.remove(0);
    assert!(sent.contains(header) && sent.contains(&body), "the upstream receives the bytes of the client");
    let sessions = fixture.sessions().await;
    assert_no_secret_on_disk(fixture.folder.path());
    // Parquet files are compressed, so the test searches the rows as well.
    for session in &sessions {
        for exchange in &session.exchanges {
            let text = format!("{exchange:?}");
            let bodies = [session.body(&exchange.request), session.body(&exchange.response)];
            let bodies = bodies.map(|body| String::from_utf8(body.expect("complete")).expect("text"));
            for secret in PLANTED {
                assert!(
                    !text.contains(secret) && bodies.iter().all(|body| !body.contains(secret)),
                    "{secret}"
                );
                for chunk in session.chunks.values() {
                    let hit = chunk.windows(secret.len()).any(|window| window == secret.as_bytes());
                    assert!(!hit, "{secret} is in a stored chunk");
                }
            }
            assert!(exchange.redactions.iter().any(|row| row.kind == "header:authorization"));
            let token = exchange
                .operation
                .output
                .as_deref()
                .and_then(|text| text.strip_prefix("see ")?.split_once(" done\n⟦openai_key:"))
                .map(|(token, _)| token);
            let token = token.expect("the text around the secret stays").to_owned();
            assert!(
                token.starts_with("⟦openai_key:") && bodies[0].contains(&token),
                "equal secrets have equal tokens"
            );
        }
        assert!(session.session.as_str().starts_with("⟦openai_key:"));
    }
}
