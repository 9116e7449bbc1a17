//! Embeds the texts of a file (one JSON string per line) once for each line of standard input, and prints the seconds of
//! each pass. `bench/run` alternates these passes with passes of onnxruntime.

use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

use embedding::Embedder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: throughput FILE")?;
    let file = std::fs::read_to_string(path)?;
    let texts = file.lines().map(serde_json::from_str).collect::<Result<Vec<String>, _>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let embedder = Embedder::new();
    for line in stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let vectors = embedder.embed(&texts);
        let seconds = start.elapsed().as_secs_f64();
        writeln!(stdout(), "{seconds} {}", vectors.len())?;
        stdout().flush()?;
    }
    Ok(())
}
