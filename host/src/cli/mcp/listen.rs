//! Being told of changes for as long as the client is there: `subscriptions/listen` of 2026-07-28, the session's own stream before it.
//!
//! **Invariants:** a subscription outlives the host it was made at; what may have been missed meanwhile is told as changed, so nothing is
//! missed in silence.

use bytes::Bytes;
use pointsman_client::Streamed;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Bridge;
use super::complaint::Complaint;
use super::host::{Broken, Field, ended, field, note};
use super::message::{Request, Response, is_response, line_of};

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

impl Bridge {
    /// Listens until the host refuses or the client is gone (none). The end that a host announces when it drains is no end here:
    /// another one comes.
    pub(super) async fn listen(&self, request: &Request, fields: &[Field]) -> Option<Result<Response, Broken>> {
        let mut patience = self.host.patience();
        let mut is_known = false;
        loop {
            let tried = self.listen_once(request, fields, &mut is_known).await;
            if is_known {
                patience = self.host.endless();
            }
            let after_ms = match &tried {
                Ok(response) if response.refused.is_some() => return Some(tried),
                Err(Broken::Refused(_)) => return Some(tried),
                Err(Broken::Busy { after_ms, .. }) => *after_ms,
                Ok(_) | Err(Broken::Away { .. } | Broken::Lost { .. }) => 0,
            };
            if !patience.pause(&self.host, after_ms).await {
                return if self.host.closing.is_cancelled() { None } else { Some(tried) };
            }
        }
    }

    async fn listen_once(&self, request: &Request, fields: &[Field], is_known: &mut bool) -> Result<Response, Broken> {
        let mut answer = self.host.open("POST", fields, request.message.line.clone()).await?;
        if !answer.is_events() {
            return self.host.response(answer, &request.id).await;
        }
        loop {
            let Some(data) = self.heard(&mut answer).await? else { return Err(ended()) };
            if is_response(&data) {
                return Response::read(data.as_bytes(), &request.id).ok_or_else(ended);
            }
            let acknowledged = acknowledged(&data);
            match acknowledged {
                Some(params) if std::mem::replace(is_known, true) => {
                    for line in missed(&params) {
                        self.output.write(line).await;
                    }
                }
                Some(_) | None => self.output.write(line_of(data)).await,
            }
        }
    }

    /// Returns the next thing said on a stream; none: nobody is left to hear, or the stream ended.
    async fn heard(&self, answer: &mut Streamed) -> Result<Option<String>, Broken> {
        loop {
            let heard = tokio::select! {
                heard = answer.event() => heard,
                () = self.host.closing.cancelled() => Ok(None),
            };
            match heard {
                Ok(Some(data)) if data.is_empty() => {}
                Ok(heard) => return Ok(heard),
                Err(error) => return Err(Broken::Lost { why: error.to_string() }),
            }
        }
    }

    /// Keeps the session's own stream open, whichever session it is.
    pub(super) async fn keep_listening(&self) {
        let mut ready = self.session.ready.subscribe();
        loop {
            let Ok(generation) = ready.wait_for(|generation| *generation > 0).await.map(|generation| *generation) else { return };
            tokio::select! {
                () = self.listen_to(generation) => if ready.changed().await.is_err() { return },
                changed = ready.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Keeps the stream of one session open until the host has none for it.
    async fn listen_to(&self, generation: u64) {
        let Some(session) = self.session.current().filter(|session| session.generation == generation) else { return };
        let mut patience = self.host.endless();
        let mut last: Option<String> = None;
        // The first stream of the client's own session finds it as the client left it; in any other the host may have forgotten.
        let mut is_fresh = generation == 1;
        let mut is_told = is_fresh;
        loop {
            if !std::mem::take(&mut is_fresh)
                && let Err(broken) = self.restore(&session).await
            {
                if let Broken::Refused(complaint) = broken {
                    return unheard(&complaint);
                }
                if !patience.pause(&self.host, 0).await {
                    return;
                }
                continue;
            }
            let mut fields = session.fields();
            fields.extend(last.as_ref().map(|last| field("last-event-id", last)));
            let mut after_ms = 0;
            let opened = match self.host.open("GET", &fields, Bytes::new()).await {
                Ok(answer) => self.host.admitted(answer).await,
                broken => broken,
            };
            match opened {
                Ok(mut answer) if answer.status() == 200 && answer.is_events() => {
                    patience.renew();
                    if !std::mem::replace(&mut is_told, true) {
                        // The host tells who comes back what may have changed; who is new to it hears that here.
                        for line in missed(&self.session.watched()) {
                            self.output.write(line).await;
                        }
                    }
                    while let Ok(Some(data)) = self.heard(&mut answer).await {
                        self.output.write(line_of(data)).await;
                    }
                    last = answer.last_event_id().map(str::to_owned).or(last);
                    after_ms = answer.retry_ms().unwrap_or(0);
                }
                Ok(answer) if answer.status() == 405 => return,
                Ok(answer) if answer.status() == 404 && last.take().is_none() => {
                    drop(answer);
                    if let Err(broken) = self.reopen(&session).await {
                        note(&self.host.complaint(broken).to_string());
                    }
                }
                Ok(_) | Err(Broken::Away { .. } | Broken::Busy { .. } | Broken::Lost { .. }) => {}
                Err(Broken::Refused(complaint)) => return unheard(&complaint),
            }
            if !patience.pause(&self.host, after_ms).await {
                return;
            }
        }
    }
}

/// Says that a session is told nothing from now on: the host said so, and would say it again.
fn unheard(complaint: &Complaint) {
    note(&format!("no changes will be told in this session: {complaint}"));
}

/// Returns the parameters of an acknowledgement; none for any other message.
fn acknowledged(json: &str) -> Option<Value> {
    #[derive(Deserialize)]
    struct Said {
        method: String,
        params: Value,
    }
    // Most of what passes is something else: the name is looked for before the message is read.
    let said = json.contains(ACKNOWLEDGED).then(|| serde_json::from_str::<Said>(json).ok()).flatten()?;
    (said.method == ACKNOWLEDGED).then_some(said.params)
}

/// Returns what may have changed while nobody listened: everything that was acknowledged. A task's state is asked for by its id.
fn missed(acknowledged: &Value) -> Vec<Bytes> {
    let honoured = &acknowledged["notifications"];
    let tell = |method: &str, mut params: Value| {
        if acknowledged["_meta"].is_object() {
            params["_meta"] = acknowledged["_meta"].clone();
        }
        line_of(json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string())
    };
    let lists = [
        ("toolsListChanged", "notifications/tools/list_changed"),
        ("promptsListChanged", "notifications/prompts/list_changed"),
        ("resourcesListChanged", "notifications/resources/list_changed"),
    ];
    let lists = lists.iter().filter(|(key, _)| honoured[*key] == true).map(|(_, method)| tell(method, json!({})));
    let uris = honoured["resourceSubscriptions"].as_array().into_iter().flatten();
    lists.chain(uris.map(|uri| tell("notifications/resources/updated", json!({"uri": uri})))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::{INITIALIZED, bridge, initialize};
    use super::*;

    #[tokio::test]
    async fn a_stream_that_is_refused_is_not_asked_for_again() {
        for status in [400, 401, 403, 406] {
            let refused = r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}"#;
            let (bridge, _writer) =
                bridge(std::io::sink(), move |asked| Some(if asked.starts_with("GET") { (status, refused) } else { (200, INITIALIZED) }))
                    .await;
            initialize(&bridge).await;
            let given_up = tokio::time::timeout(Duration::from_secs(20), bridge.listen_to(1)).await;
            assert!(given_up.is_ok(), "it goes on asking after {status}");
        }
    }

    #[tokio::test]
    async fn a_session_that_cannot_be_brought_back_is_given_up() {
        let refused = r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}"#;
        let (bridge, _writer) = bridge(std::io::sink(), move |asked| {
            assert!(!asked.starts_with("GET"), "the stream comes after the subscriptions");
            Some(if asked.contains("setLevel") { (401, refused) } else { (200, INITIALIZED) })
        })
        .await;
        initialize(&bridge).await;
        initialize(&bridge).await;
        let message = super::super::fixture::message(r#"{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{"level":"info"}}"#);
        bridge.session.remember(&Request { id: "2".to_owned(), method: "logging/setLevel".to_owned(), message });
        let given_up = tokio::time::timeout(Duration::from_secs(20), bridge.listen_to(2)).await;
        assert!(given_up.is_ok(), "it goes on asking");
    }

    #[test]
    fn what_was_acknowledged_may_have_changed() {
        let said = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7},"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a://b"]}}}"#;
        let lines = missed(&acknowledged(said).expect("an acknowledgement"));
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect();
        assert_eq!(lines[0]["method"], "notifications/tools/list_changed");
        assert_eq!(lines[1]["params"]["uri"], "a://b");
        assert!(lines.len() == 2 && lines.iter().all(|line| line["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == 7));
        assert_eq!(
            acknowledged(r#"{"method":"notifications/message","params":{"data":"notifications/subscriptions/acknowledged"}}"#),
            None
        );
    }
}
