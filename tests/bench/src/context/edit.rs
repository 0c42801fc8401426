//! What an edit of a large document moves: a hundredth of it is changed in many places, uploaded by a client that has the whole, and
//! downloaded by another that has the version before. Counted are the bodies of all requests and answers, as they go over the wire.

use super::noise::Noise;
use super::transfer::Transfer;
use crate::figures::{BenchError, Figures, count, now, setup};
use crate::stage::Host;

/// Bytes of the document.
const DOCUMENT_BYTES: usize = 8 << 20;
/// What part of it is changed: one in so many bytes.
const CHANGED_ONE_IN: usize = 100;
/// Places at which it is changed, each of them in one piece.
const PLACES: usize = 16;
const KEY: &str = "docs/large";
const MEDIA_TYPE: &str = "text/plain";

pub(super) async fn measure(host: &Host, figures: &mut Figures) -> Result<(), BenchError> {
    host.begin(["uploader".to_owned(), "downloader".to_owned()]).await?;
    let mut noise = Noise::of(1);
    let before = noise.lines(DOCUMENT_BYTES).into_bytes();
    let after = edited(&before, &mut noise);
    let mut there = Transfer::of(host, "uploader", KEY)?;
    let mut back = Transfer::of(host, "downloader", KEY)?;
    let first = there.upload(&before, MEDIA_TYPE, 0).await?;
    let whole = there.take_moved();
    downloaded(&mut back, &[], &before, first).await?;
    let whole_back = back.take_moved();

    let began = now();
    let second = there.upload(&after, MEDIA_TYPE, first).await?;
    figures.add("edit_upload_ms", began.elapsed().as_secs_f64() * 1e3);
    let began = now();
    downloaded(&mut back, &before, &after, second).await?;
    figures.add("edit_download_ms", began.elapsed().as_secs_f64() * 1e3);

    let of_size = |moved: usize, document: &[u8]| count(moved) / count(document.len());
    figures.add("document_bytes", count(after.len()));
    figures.add("first_upload_ratio", of_size(whole, &before));
    figures.add("first_download_ratio", of_size(whole_back, &before));
    figures.add("edit_upload_ratio", of_size(there.take_moved(), &after));
    figures.add("edit_download_ratio", of_size(back.take_moved(), &after));
    figures.add_for("edit_bytes_ratio", figures.get("edit_upload_ratio").max(figures.get("edit_download_ratio")), "<= 0.15");
    Ok(())
}

/// Returns the document with its changes: of four, two replace what was there, one adds to it, one removes it.
fn edited(document: &[u8], noise: &mut Noise) -> Vec<u8> {
    let bytes = DOCUMENT_BYTES / CHANGED_ONE_IN / PLACES;
    let mut edited = document.to_vec();
    // From the end, so that places yet to come stay where they are.
    for place in (0..PLACES).rev() {
        let at = (2 * place + 1) * document.len() / (2 * PLACES);
        let (removed, added) = match place % 4 {
            2 => (0, bytes),
            3 => (bytes, 0),
            _ => (bytes, bytes),
        };
        let new = if added > 0 { noise.lines(added) } else { String::new() };
        edited.splice(at..at + removed, new.into_bytes());
    }
    edited
}

/// Downloads, and sees that it is what was uploaded.
async fn downloaded(client: &mut Transfer, known: &[u8], expected: &[u8], version: u64) -> Result<(), BenchError> {
    let (found, newest) = client.download(known).await?;
    if newest != version || found != expected {
        return Err(setup(format!("version {newest} of {KEY} is not version {version} as it was uploaded")));
    }
    Ok(())
}
