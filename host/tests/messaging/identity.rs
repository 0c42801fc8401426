//! Who is who: tokens, handles, names, grants.

use pointsman::ports::surface::{Caller, Rejected};
use pointsman::service::agents::{NewToken, StartRequest};
use pointsman_core::event::Provenance;
use pointsman_core::ids::{AgentId, ProjectId};

use crate::world::{World, code};

fn named(name: &str) -> StartRequest {
    StartRequest { name: Some(name.to_owned()), ..StartRequest::default() }
}

fn token(world: &World, ttl_ms: Option<u64>) -> NewToken {
    NewToken {
        principal_name: "ana".to_owned(),
        provenance: Provenance::Agent,
        projects: vec![world.project],
        capabilities: Vec::new(),
        toolsets: vec!["files".to_owned()],
        ttl_ms,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_their_projects_until_they_are_revoked() {
    let world = World::start().await;
    let other = ProjectId::from_bytes([3; 16]);
    world.agents.create_project(other, "other", "main").await.expect("a project");
    let (secret, record) = world.agents.mint_token(&token(&world, None)).await.expect("a token");
    let admit = async |world: &World, secret: Option<&str>, slug: Option<&str>| world.agents.admit(secret, slug, "t".to_owned()).await;
    assert!(secret.starts_with("pmt_") && secret.len() == 4 + 52);
    let caller = admit(&world, Some(&secret), None).await.expect("it opens its first project");
    assert_eq!((caller.project, caller.token.id), (world.project, record.id));
    assert!(admit(&world, Some(&secret), Some("demo")).await.is_ok());
    for closed in ["other", "missing"] {
        assert_eq!(admit(&world, Some(&secret), Some(closed)).await.map(|_| ()), Err(Rejected::Forbidden { slug: closed.to_owned() }));
    }
    assert_eq!(admit(&world, None, None).await.map(|_| ()), Err(Rejected::Missing));
    assert!(matches!(admit(&world, Some("pmt_wrong"), None).await, Err(Rejected::Invalid { .. })));
    assert!(matches!(admit(&world, Some("${TOKEN}"), None).await, Err(Rejected::Invalid { why }) if why.contains("variable")));

    let world = world.restart().await;
    assert!(admit(&world, Some(&secret), None).await.is_ok(), "it survives a restart");
    world.agents.revoke_token(record.id).await.expect("it is revoked");
    assert!(matches!(admit(&world, Some(&secret), None).await, Err(Rejected::Invalid { why }) if why.contains("revoked")), "at once");
    assert_eq!(world.agents.tokens().await.expect("a list").len(), 1);

    let (short, _) = world.agents.mint_token(&token(&world, Some(1_000))).await.expect("a token");
    assert!(admit(&world, Some(&short), None).await.is_ok());
    world.pass(1_000).await;
    assert!(matches!(admit(&world, Some(&short), None).await, Err(Rejected::Invalid { why }) if why.contains("expired")));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_projects_and_tokens_are_refused() {
    let world = World::start().await;
    let id = ProjectId::from_bytes([3; 16]);
    assert_eq!(code(world.agents.create_project(id, "demo", "main").await), "slug_taken");
    assert_eq!(code(world.agents.create_project(id, "De mo", "main").await), "bad_argument");
    assert_eq!(code(world.agents.create_project(id, "x", "").await), "bad_argument");
    assert_eq!(code(world.agents.project_by_slug("nope").await), "not_found");
    let wrong = |change: fn(&mut NewToken)| {
        let mut new = token(&world, None);
        change(&mut new);
        new
    };
    let mint = async |new: NewToken| code(world.agents.mint_token(&new).await);
    assert_eq!(mint(wrong(|new| new.projects.clear())).await, "bad_argument");
    assert_eq!(mint(wrong(|new| new.projects = vec![ProjectId::from_bytes([9; 16])])).await, "not_found");
    assert_eq!(mint(wrong(|new| new.principal_name = " ".to_owned())).await, "bad_argument");
    assert_eq!(mint(wrong(|new| new.provenance = Provenance::Host)).await, "bad_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_its_id_and_what_it_does_not_say_again() {
    let world = World::start().await;
    let caller = world.caller("ana", &["rust", "review"]).await;
    assert_eq!(code(world.agents.resolve(&caller, None).await), "start_first");
    let request = StartRequest {
        capabilities: Some(vec!["rust@1.95.0".to_owned(), "review".to_owned()]),
        teams: Some(vec!["core".to_owned()]),
        model: Some("m1".to_owned()),
        ..named("ana")
    };
    let first = world.agents.start(&caller, &request).await.expect("it starts");
    assert!(first.is_new);
    let world = world.restart().await;
    let again = world.agents.start(&caller, &named("ana")).await.expect("it starts again");
    assert!(!again.is_new);
    assert_eq!(
        (again.agent.id, &again.agent.capabilities, &again.agent.teams),
        (first.agent.id, &first.agent.capabilities, &first.agent.teams)
    );

    let beyond = StartRequest { capabilities: Some(vec!["rust".to_owned(), "deploy".to_owned()]), ..named("ana") };
    assert_eq!(code(world.agents.start(&caller, &beyond).await), "not_granted");
    let malformed = StartRequest { capabilities: Some(vec!["Rust!".to_owned()]), ..named("ana") };
    assert_eq!(code(world.agents.start(&caller, &malformed).await), "bad_capability");
    let id = AgentId::from_bytes([1; 16]).to_string();
    for wrong in ["", "a b", "hdl_x", id.as_str()] {
        assert_eq!(code(world.agents.start(&caller, &named(wrong)).await), "bad_argument", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_selects_only_an_agent_of_its_principal() {
    let world = World::start().await;
    let (ana, eve) = (world.caller("ana", &[]).await, world.caller("eve", &[]).await);
    let one = world.agents.start(&ana, &named("one")).await.expect("it starts");
    world.pass(10).await;
    let two = world.agents.start(&ana, &named("two")).await.expect("it starts");
    let hers = world.agents.start(&eve, &named("eve")).await.expect("it starts");
    assert_eq!(code(world.agents.start(&eve, &named("one")).await), "name_taken");

    let who = async |caller: &Caller, agent: Option<&str>| world.agents.resolve(caller, agent).await.map(|agent| agent.name.clone());
    assert_eq!(who(&ana, None).await.expect("the last one"), "two");
    assert_eq!(who(&ana, Some("one")).await.expect("by name"), "one");
    assert_eq!(who(&ana, Some(&one.agent.id.to_string())).await.expect("by id"), "one");
    assert_eq!(who(&ana, Some(&one.handle)).await.expect("by handle"), "one");
    let in_session = Caller { handle: Some(one.handle.clone()), ..ana.clone() };
    assert_eq!(who(&in_session, None).await.expect("by session"), "one");
    assert_eq!(who(&in_session, Some(&two.handle)).await.expect("the argument is nearer"), "two");

    for stolen in [one.handle.as_str(), "one"] {
        assert_eq!(code(who(&eve, Some(stolen)).await), "not_yours");
    }
    assert_eq!(code(who(&ana, Some(&hers.handle)).await), "not_yours");
    assert_eq!(code(who(&ana, Some("nobody")).await), "not_found");
    let mut forged = one.handle.clone();
    let last = if forged.pop() == Some('a') { 'b' } else { 'a' };
    forged.push(last);
    assert_eq!(code(who(&ana, Some(&forged)).await), "bad_handle");
    assert_eq!(code(who(&ana, Some("hdl_")).await), "bad_handle");

    let world = world.restart().await;
    let still = world.agents.resolve(&ana, Some(&one.handle)).await.expect("handles survive a restart");
    assert_eq!(still.id, one.agent.id);
    let names: Vec<String> = world.agents.agents(world.project).await.expect("a list").iter().map(|agent| agent.name.clone()).collect();
    assert_eq!(names, ["eve", "one", "two"]);
}
