//! Golden calls: cases that a component carries along, so that a host can ask them before it takes the component in.
//!
//! Owns: which cases go along, their form in the component's section, reading them back. Must not know: who asks them.
//!
//! **Invariant:** what is chosen is bounded, and each golden call is answered under the configuration it was written for: its own,
//! or that of the manifest, never an operator's.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Call, Case};

/// The custom section that carries them.
pub const SECTION: &str = "pointsman.cases";
/// The most that a component carries.
pub const CASES_MAX: usize = 64;
/// Bytes of all of them.
pub const BYTES_MAX: usize = 256 << 10;
/// The version of the section's form.
const VERSION: u32 = 1;
/// Bytes of what stands around the cases.
const FRAME_BYTES: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    version: u32,
    cases: Vec<Carried>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Carried {
    name: String,
    call: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Map<String, Value>>,
    input: Map<String, Value>,
    expect: Map<String, Value>,
}

/// The cases that go along with a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The section's content.
    pub json: String,
    /// How many there are in it.
    pub taken: usize,
    /// Of how many.
    pub of: usize,
}

/// Chooses golden calls: the cases marked `golden = true`, else all that are not marked otherwise, in their order, as many as have
/// room. A case that expects a failure is none. Returns none where there is nothing to choose.
#[must_use]
pub fn choose(cases: &[Case]) -> Option<Chosen> {
    let is_marked = |case: &&Case| case.golden == Some(true);
    let may_go = |case: &&Case| case.golden.is_none() && case.expect.get("failure").is_none();
    let marked: Vec<&Case> = cases.iter().filter(is_marked).collect();
    let among = if marked.is_empty() { cases.iter().filter(may_go).collect() } else { marked };
    let (mut taken, mut bytes) = (Vec::new(), FRAME_BYTES);
    for case in &among {
        let carried = Carried::of(case);
        let more = serde_json::to_string(&carried).map_or(usize::MAX, |text| text.len() + 1);
        if taken.len() < CASES_MAX && bytes.saturating_add(more) <= BYTES_MAX {
            bytes += more;
            taken.push(carried);
        }
    }
    if taken.is_empty() {
        return None;
    }
    let count = taken.len();
    let json = serde_json::to_string(&Section { version: VERSION, cases: taken }).ok()?;
    Some(Chosen { json, taken: count, of: among.len() })
}

impl Carried {
    fn of(case: &Case) -> Self {
        let object = |value: Value| if let Value::Object(fields) = value { fields } else { Map::new() };
        Self {
            name: case.name.clone(),
            call: case.call.name().to_owned(),
            config: case.config.clone(),
            input: object(case.call.input()),
            expect: object(case.expect.clone()),
        }
    }

    fn case(self) -> Result<Case, String> {
        let Self { name, call, config, input, expect } = self;
        let call = Call::read(&call, input).map_err(|why| format!("`{name}`: {why}"))?;
        Ok(Case { name, config, golden: Some(true), call, expect: Value::Object(expect) })
    }
}

/// Reads what a component's section carries.
///
/// # Errors
/// What is wrong with it.
pub fn parse(json: &str) -> Result<Vec<Case>, String> {
    let section: Section = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if section.version != VERSION {
        return Err(format!("they are of the form {}, here they are of {VERSION}", section.version));
    }
    if section.cases.len() > CASES_MAX {
        return Err(format!("there are {}; at most {CASES_MAX} are asked", section.cases.len()));
    }
    section.cases.into_iter().map(Carried::case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, head: &str, expect: &str) -> Case {
        let text =
            format!("name = \"{name}\"\ncall = \"route\"\n{head}\n[input]\nmessage = {{ kind = \"question\" }}\n[expect]\n{expect}\n");
        Case::parse(name, &text).expect("fits")
    }

    fn names(cases: &[Case]) -> Vec<String> {
        let chosen = choose(cases).expect("some are chosen");
        let read = parse(&chosen.json).expect("it is read back");
        assert_eq!(read.len(), chosen.taken);
        read.into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn what_is_marked_goes_along_else_all_that_may() {
        let plain = || case("plain", "", "decision = \"pass\"");
        let never = || case("never", "golden = false", "decision = \"pass\"");
        let fails = || case("fails", "", "failure = \"trapped\"");
        assert_eq!(names(&[plain(), never(), fails()]), ["plain"]);
        assert_eq!(names(&[plain(), never(), case("marked", "golden = true", "decision = \"pass\"")]), ["marked"]);
        assert_eq!(choose(&[never(), fails()]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn a_case_is_read_back_as_it_was() {
        let own = case("own", "config = { broadcast_kinds = [\"notice\"] }", "to = [\"ana\"]");
        let chosen = choose(std::slice::from_ref(&own)).expect("it goes along");
        assert_eq!(parse(&chosen.json), Ok(vec![Case { golden: Some(true), ..own }]));
        let text = "call = \"handle\"\n[input.event]\nlogged = { type = \"task.created\", data = { x = [1] } }\n[expect]\nactions = []\n";
        let agent = Case::parse("agent", text).expect("fits");
        let chosen = choose(std::slice::from_ref(&agent)).expect("it goes along");
        assert_eq!(parse(&chosen.json), Ok(vec![Case { golden: Some(true), ..agent }]));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let many: Vec<Case> = (0..100).map(|n| case(&format!("{n:03}"), "", "decision = \"pass\"")).collect();
        let chosen = choose(&many).expect("some");
        assert_eq!((chosen.taken, chosen.of), (CASES_MAX, 100));
        assert_eq!(names(&many)[..2], ["000".to_owned(), "001".to_owned()]);
        let large = case("large", "", &format!("reason = \"{}\"", "x".repeat(BYTES_MAX)));
        assert_eq!(names(&[large, case("small", "", "decision = \"pass\"")]), ["small"], "one that has no room is left out");
        assert!(choose(&many).is_some_and(|chosen| chosen.json.len() <= BYTES_MAX));
    }

    #[test]
    fn what_is_no_section_of_this_host_is_named() {
        assert!(parse("[]").is_err());
        assert!(parse("{\"version\":2,\"cases\":[]}").expect_err("newer").contains("of the form 2"));
        let unknown = r#"{"version":1,"cases":[{"name":"x","call":"rout","input":{},"expect":{"a":1}}]}"#;
        assert!(parse(unknown).expect_err("no such call").contains("`x`: there is no call `rout`"));
    }
}
