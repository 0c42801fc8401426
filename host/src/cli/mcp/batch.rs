//! Batches of a session of 2025-03-26: several messages in one exchange, and their answers in one.
//!
//! **Invariant:** each request of a batch is answered once, whatever becomes of the exchange; one that may have acted is not sent again.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::complaint::Complaint;
use super::host::Broken;
use super::message::{Message, Response, line_of};
use super::session::Opened;
use super::{Bridge, REQUESTS_MAX};

impl Bridge {
    /// Starts a batch with requests of these ids.
    pub(super) async fn ask_all(self: &Arc<Self>, ids: Vec<String>, batch: Message, requests: &mut JoinSet<()>) {
        let permit = match (self.unusable, Arc::clone(&self.permits).try_acquire_owned()) {
            (Some(why), _) => return self.refuse_all(&ids, &Complaint::TokenUnusable { why }).await,
            (None, Err(_)) => return self.refuse_all(&ids, &Complaint::TooMany { max: REQUESTS_MAX }).await,
            (None, Ok(permit)) => permit,
        };
        let bridge = Arc::clone(self);
        requests.spawn(async move {
            let mut patience = bridge.host.patience();
            let broken = loop {
                let broken = match bridge.answer_all(&ids, &batch).await {
                    Ok(()) => return,
                    Err(broken) => broken,
                };
                let after_ms = match &broken {
                    Broken::Away { .. } => 0,
                    Broken::Busy { after_ms, .. } => *after_ms,
                    Broken::Lost { .. } | Broken::Refused(_) => break broken,
                };
                if !patience.pause(&bridge.host, after_ms).await {
                    break broken;
                }
            };
            bridge.refuse_all(&ids, &bridge.host.complaint(broken)).await;
            drop(permit);
        });
    }

    async fn answer_all(&self, ids: &[String], batch: &Message) -> Result<(), Broken> {
        let mut session = self.session.current();
        let mut is_reopened = false;
        let answer = loop {
            let fields = session.as_ref().map(Opened::fields).unwrap_or_default();
            let answer = self.host.open("POST", &fields, batch.line.clone()).await?;
            match (answer.status(), &session) {
                (404, Some(dead)) if !is_reopened => {
                    is_reopened = true;
                    session = Some(self.reopen(dead).await?);
                }
                _ => break answer,
            }
        };
        if answer.status() != 200 {
            // A refusal is one for all: each gets it under its own id.
            let refused = self.host.response(answer, "null").await?.line;
            for id in ids {
                if let Some(response) = refusal(&refused, id) {
                    self.output.write(response.line).await;
                }
            }
            return Ok(());
        }
        let whole = answer.whole().await.map_err(|error| Broken::Lost { why: error.to_string() })?;
        if serde_json::from_slice::<Vec<&RawValue>>(&whole.body).is_err() {
            return Err(Broken::Lost { why: "the answer is none to a batch".to_owned() });
        }
        self.output.write(line_of(whole.body)).await;
        Ok(())
    }

    async fn refuse_all(&self, ids: &[String], complaint: &Complaint) {
        for id in ids {
            self.output.write(complaint.line(Some(id))).await;
        }
    }
}

/// Returns a refusal of a whole batch as that of one request.
fn refusal(line: &[u8], id: &str) -> Option<Response> {
    let mut refused: serde_json::Value = serde_json::from_slice(line).ok()?;
    refused.as_object_mut()?.remove("id");
    Response::read(refused.to_string().as_bytes(), id)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{INITIALIZED, bridge, initialize, message};
    use super::super::message::Kind;
    use super::*;

    /// Returns what a client hears of a batch that the host answers so.
    async fn heard(answer: Option<(u16, &'static str)>) -> Vec<serde_json::Value> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let out = file.reopen().expect("opened again");
        let (bridge, writer) = bridge(out, move |asked| if asked.contains("initialize") { Some((200, INITIALIZED)) } else { answer }).await;
        initialize(&bridge).await;
        let batch = message(r#"[{"jsonrpc":"2.0","id":2,"method":"ping"},{"jsonrpc":"2.0","id":"b","method":"tools/list"}]"#);
        let Kind::Batch { ids } = batch.kind.clone() else { panic!("no batch") };
        let mut requests = JoinSet::new();
        bridge.ask_all(ids, batch, &mut requests).await;
        let cancel = message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"b"}}"#);
        assert!(bridge.cancel(&cancel), "the host knows the members, the bridge does not");
        requests.join_next().await.expect("a task").expect("it ends well");
        drop(bridge);
        writer.join().expect("the thread ends").expect("a file takes all");
        let text = std::fs::read_to_string(file.path()).expect("read");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[tokio::test]
    async fn each_request_of_a_batch_is_answered_whatever_happens() {
        let whole = heard(Some((200, r#"[{"jsonrpc":"2.0","id":2,"result":{}},{"jsonrpc":"2.0","id":"b","result":{}}]"#))).await;
        assert_eq!((whole.len(), &whole[0][1]["id"]), (1, &serde_json::json!("b")), "{whole:?}");
        let refused = r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no batches"}}"#;
        for (answer, words) in [
            (None, "may have acted"),
            (Some((400, refused)), "no batches"),
            (Some((401, refused)), "refused the token"),
            (Some((200, "<html>")), "may have acted"),
        ] {
            let said = heard(answer).await;
            let ids: Vec<_> = said.iter().map(|answer| answer["id"].clone()).collect();
            assert_eq!(ids, [serde_json::json!(2), serde_json::json!("b")], "{said:?}");
            assert!(said.iter().all(|answer| answer["error"]["message"].as_str().is_some_and(|why| why.contains(words))), "{said:?}");
        }
    }

    #[test]
    fn a_refusal_of_all_is_one_of_each() {
        for body in
            [r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}}"#, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#]
        {
            let refused = refusal(body.as_bytes(), "\"a\"").expect("a response").json();
            assert_eq!((&refused["id"], &refused["error"]["code"]), (&serde_json::json!("a"), &serde_json::json!(-1)));
        }
        assert!(refusal(b"[]", "1").is_none());
    }
}
