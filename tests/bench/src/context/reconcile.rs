//! What a write takes that others overtook: two edits of different members of one JSON document of 10 KiB, the first fresh, the second
//! from the version before, so that the host has to merge it. Both are timed over HTTP, one after another.

use pointsman_client::Client;
use serde_json::{Map, Value, json};

use super::noise::Noise;
use super::version;
use crate::figures::{BenchError, Figures, median, now, setup};
use crate::stage::{Host, call};

/// Members of the document, and the letters of each: with names and signs 10 KiB.
const MEMBERS: usize = 100;
const LETTERS: usize = 90;
/// Pairs of writes, after some that do not count.
const PAIRS: usize = 200;
const PAIRS_BEFORE: usize = 10;
const KEY: &str = "merged/table";
const FRESH: &str = "fresh-editor";
const STALE: &str = "stale-editor";

pub(super) async fn measure(host: &Host, figures: &mut Figures) -> Result<(), BenchError> {
    host.begin([FRESH.to_owned(), STALE.to_owned()]).await?;
    let client = host.client()?;
    let mut noise = Noise::of(0);
    let mut document: Map<String, Value> = (0..MEMBERS).map(|n| (member(n), noise.text(LETTERS).into())).collect();
    let mut base = write(&client, FRESH, 0, &document).await?.version;
    let (mut fresh_us, mut stale_us) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS_BEFORE + PAIRS {
        // Far apart, and never the same one twice in a row.
        let (one, other) = (pair % MEMBERS, (pair + MEMBERS / 2) % MEMBERS);
        let (mut ours, mut theirs) = (document.clone(), document);
        ours.insert(member(one), noise.text(LETTERS).into());
        theirs.insert(member(other), noise.text(LETTERS).into());
        let fresh = write(&client, FRESH, base, &ours).await?;
        let stale = write(&client, STALE, base, &theirs).await?;
        if fresh.is_merged || !stale.is_merged {
            return Err(setup(format!("a fresh write of {KEY} was merged, or a stale one was not")));
        }
        if pair >= PAIRS_BEFORE {
            fresh_us.push(fresh.took_us);
            stale_us.push(stale.took_us);
        }
        base = stale.version;
        ours.insert(member(other), theirs[&member(other)].clone());
        document = ours;
    }
    let found = call(&client, "lookup", json!({"agent": FRESH, "uri": format!("context/{KEY}")})).await?;
    if found["version"] != base {
        return Err(setup(format!("{KEY} has version {} after {base}", found["version"])));
    }
    figures.add("write_json_us_10kb", median(fresh_us));
    figures.add("reconcile_json_us_10kb", median(stale_us));
    Ok(())
}

fn member(n: usize) -> String {
    format!("member-{n:03}")
}

/// A write that was answered.
struct Written {
    version: u64,
    is_merged: bool,
    took_us: f64,
}

async fn write(client: &Client, by: &str, base: u64, document: &Map<String, Value>) -> Result<Written, BenchError> {
    let arguments = json!({"agent": by, "key": KEY, "base_version": base, "value": document});
    let began = now();
    let answer = call(client, "write_context", arguments).await?;
    let took_us = began.elapsed().as_secs_f64() * 1e6;
    Ok(Written { version: version(&answer)?, is_merged: answer["merged_with"].is_u64(), took_us })
}
