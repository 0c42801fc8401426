//! Offers as a component made them, checked against what clients reject.
//!
//! **Invariant:** a [`Checked`] holds no name twice, and every schema in it can be validated against without the network.

use std::collections::HashSet;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Map, Value};

use super::template::Pattern;
use crate::json_schema::validator;
use crate::ports::offering::{News, ParamHeader};
use crate::ports::provider::Offers;
use crate::service::surface::own;

/// Characters of a full name.
const NAME_CHARS_MAX: usize = 64;
/// Bytes of one offer's JSON.
const OFFER_BYTES_MAX: usize = 64 << 10;
/// Offers of one kind of one component.
const OFFERS_MAX: usize = 1_000;
/// Members that are a text, where they stand.
const TEXTS: [&str; 3] = ["title", "description", "mimeType"];
/// Members that are an object.
const OBJECTS: [&str; 2] = ["annotations", "_meta"];
/// Members that are a list of objects.
const LISTS: [&str; 2] = ["icons", "arguments"];

/// A tool on offer.
#[derive(Debug)]
pub struct Tool {
    /// Whose.
    pub plugin: String,
    /// As clients call it.
    pub full_name: String,
    /// As the component knows it.
    pub name: String,
    /// The `Tool` object, under its full name.
    pub json: String,
    /// What arguments must fit.
    pub input: Validator,
    /// What structured content must fit.
    pub output: Option<Validator>,
    /// Arguments that headers mirror.
    pub headers: Arc<[ParamHeader]>,
}

/// A resource on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Whose.
    pub plugin: String,
    /// Which.
    pub uri: String,
    /// The `Resource` object.
    pub json: String,
}

/// A resource template on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Whose.
    pub plugin: String,
    /// As it is written.
    pub uri_template: String,
    /// The `ResourceTemplate` object.
    pub json: String,
    pattern: Pattern,
}

impl Template {
    /// Returns whether a URI is one of the template's.
    #[must_use]
    pub fn fits(&self, uri: &str) -> bool {
        self.pattern.fits(uri)
    }
}

/// A prompt on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Whose.
    pub plugin: String,
    /// As clients ask for it.
    pub full_name: String,
    /// As the component knows it.
    pub name: String,
    /// The `Prompt` object, under its full name.
    pub json: String,
}

/// Everything one component offers, checked.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    pub(super) tools: Vec<Arc<Tool>>,
    pub(super) resources: Vec<Resource>,
    pub(super) templates: Vec<Template>,
    pub(super) prompts: Vec<Prompt>,
}

impl Checked {
    /// Checks offers.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub(super) fn of(plugin: &str, offers: Offers) -> Result<Self, String> {
        let mut namespace = offers.namespace;
        if !is_name(&namespace) {
            return Err(format!("the namespace `{namespace}` is not of a-z, 0-9 and `_`"));
        }
        if !namespace.is_empty() && !namespace.ends_with('_') {
            namespace.push('_');
        }
        let mut checked = Self::default();
        for (at, text) in all("tools", &offers.tools)? {
            let mut object = object(text).map_err(|why| format!("tools[{at}]: {why}"))?;
            let (name, full_name) = rename(&mut object, &namespace).map_err(|why| format!("tools[{at}]: {why}"))?;
            let tool = tool(plugin, name, &full_name, object).map_err(|why| format!("tool `{full_name}`: {why}"))?;
            checked.tools.push(Arc::new(tool));
        }
        for (at, text) in all("resources", &offers.resources)? {
            let object = object(text).map_err(|why| format!("resources[{at}]: {why}"))?;
            let uri = string(&object, "uri").map_err(|why| format!("resources[{at}]: {why}"))?;
            string(&object, "name").map_err(|why| format!("resource `{uri}`: {why}"))?;
            checked.resources.push(Resource { plugin: plugin.to_owned(), uri, json: text.clone() });
        }
        for (at, text) in all("templates", &offers.templates)? {
            let object = object(text).map_err(|why| format!("templates[{at}]: {why}"))?;
            let uri_template = string(&object, "uriTemplate").map_err(|why| format!("templates[{at}]: {why}"))?;
            string(&object, "name").map_err(|why| format!("template `{uri_template}`: {why}"))?;
            let pattern = uri_template.parse().map_err(|why| format!("template `{uri_template}`: {why}"))?;
            checked.templates.push(Template { plugin: plugin.to_owned(), uri_template, json: text.clone(), pattern });
        }
        for (at, text) in all("prompts", &offers.prompts)? {
            let mut object = object(text).map_err(|why| format!("prompts[{at}]: {why}"))?;
            let (name, full_name) = rename(&mut object, &namespace).map_err(|why| format!("prompts[{at}]: {why}"))?;
            let json = Value::Object(object).to_string();
            checked.prompts.push(Prompt { plugin: plugin.to_owned(), full_name, name, json });
        }
        checked.clashes(std::iter::empty())?;
        Ok(checked)
    }

    /// Finds a name that stands twice: here, in what others offer, or among the host's own.
    ///
    /// # Errors
    /// Which.
    pub(super) fn clashes<'a>(&'a self, others: impl Iterator<Item = &'a Self>) -> Result<(), String> {
        let hosts = own::names();
        let mut taken: HashSet<(&str, &str)> = hosts.iter().map(|(kind, name)| (*kind, name.as_str())).collect();
        for offered in others {
            taken.extend(offered.names());
        }
        for (kind, name) in self.names() {
            if !taken.insert((kind, name)) {
                return Err(format!("the {kind} `{name}` is on offer already"));
            }
            if matches!(kind, "resource" | "template") && name.starts_with(own::SCHEME) {
                return Err(format!("`{name}` is the host's own to offer"));
            }
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tools = self.tools.iter().map(|tool| ("tool", tool.full_name.as_str()));
        let resources = self.resources.iter().map(|resource| ("resource", resource.uri.as_str()));
        let templates = self.templates.iter().map(|template| ("template", template.uri_template.as_str()));
        tools.chain(resources).chain(templates).chain(self.prompts.iter().map(|prompt| ("prompt", prompt.full_name.as_str())))
    }

    /// Returns which lists differ from what was offered before.
    pub(super) fn changes(&self, before: &Self) -> Vec<News> {
        let mut news = Vec::new();
        let texts = |checked: &Self| checked.tools.iter().map(|tool| tool.json.clone()).collect::<Vec<_>>();
        if texts(self) != texts(before) {
            news.push(News::Tools);
        }
        if self.prompts != before.prompts {
            news.push(News::Prompts);
        }
        if self.resources != before.resources || self.templates != before.templates {
            news.push(News::Resources);
        }
        news
    }
}

fn all<'a>(kind: &str, texts: &'a [String]) -> Result<impl Iterator<Item = (usize, &'a String)>, String> {
    if texts.len() > OFFERS_MAX {
        return Err(format!("{} {kind}, at most {OFFERS_MAX} are allowed", texts.len()));
    }
    Ok(texts.iter().enumerate())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    if text.len() > OFFER_BYTES_MAX {
        return Err(format!("{} bytes, at most {OFFER_BYTES_MAX} are allowed", text.len()));
    }
    let object = serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    members(&object)?;
    Ok(object)
}

/// Checks the members that all kinds of offers share; clients refuse the whole list for one of another type.
fn members(object: &Map<String, Value>) -> Result<(), String> {
    let is_list = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(Value::is_object));
    let wrong = |keys: &[&'static str], fits: fn(&Value) -> bool| {
        keys.iter().copied().find(|key| object.get(*key).is_some_and(|value| !fits(value)))
    };
    let found = [
        (wrong(&TEXTS, Value::is_string), "a text"),
        (wrong(&OBJECTS, Value::is_object), "an object"),
        (wrong(&LISTS, is_list), "a list of objects"),
        (wrong(&["size"], Value::is_number), "a number"),
    ];
    match found.into_iter().find_map(|(key, what)| Some((key?, what))) {
        Some((key, what)) => Err(format!("`{key}` is not {what}")),
        None => Ok(()),
    }
}

fn string(object: &Map<String, Value>, key: &str) -> Result<String, String> {
    let value = object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    value.map(str::to_owned).ok_or_else(|| format!("`{key}` is not a text"))
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Puts an offer under its full name; returns both names.
fn rename(object: &mut Map<String, Value>, namespace: &str) -> Result<(String, String), String> {
    let name = string(object, "name")?;
    let full_name = format!("{namespace}{name}");
    if !is_name(&full_name) || full_name.len() > NAME_CHARS_MAX {
        return Err(format!("the name `{full_name}` is not 1 to {NAME_CHARS_MAX} of a-z, 0-9 and `_`"));
    }
    object.insert("name".to_owned(), full_name.as_str().into());
    Ok((name, full_name))
}

fn tool(plugin: &str, name: String, full_name: &str, object: Map<String, Value>) -> Result<Tool, String> {
    let input = object.get("inputSchema").ok_or("`inputSchema` is missing")?;
    if let Some(word) = ["oneOf", "anyOf", "allOf"].iter().find(|word| input.get(**word).is_some()) {
        tracing::warn!(plugin, tool = full_name, "some clients refuse all tools when one has `{word}` at the root of its schema");
    }
    let headers = param_headers(input)?.into();
    let input = root_schema("inputSchema", input)?;
    let output = object.get("outputSchema").map(|schema| root_schema("outputSchema", schema)).transpose()?;
    let json = Value::Object(object).to_string();
    Ok(Tool { plugin: plugin.to_owned(), full_name: full_name.to_owned(), name, json, input, output, headers })
}

/// Checks what clients check of the schema at the root; returns what validates against it.
fn root_schema(what: &str, schema: &Value) -> Result<Validator, String> {
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(format!("the root of `{what}` is not of `type: \"object\"`"));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some((name, _)) = properties.into_iter().flatten().find(|(_, property)| property.is_boolean()) {
        return Err(format!("`{name}` in the `properties` of `{what}` is no object"));
    }
    validator(what, schema)
}

/// Finds the arguments that headers mirror (streamable HTTP, schema extension).
///
/// # Errors
/// An annotation that clients would refuse the tool for.
fn param_headers(schema: &Value) -> Result<Vec<ParamHeader>, String> {
    let mut found = Vec::new();
    walk(schema, &mut Vec::new(), &mut found)?;
    let mentioned = count(schema);
    if mentioned > found.len() {
        return Err("`x-mcp-header` stands where the value's place is not fixed: only chains of `properties` are".to_owned());
    }
    let mut names = HashSet::new();
    match found.iter().find(|mirrored| !names.insert(mirrored.header.clone())) {
        Some(twice) => Err(format!("`x-mcp-header` names `{}` twice", twice.header)),
        None => Ok(found),
    }
}

fn walk(schema: &Value, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) -> Result<(), String> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property.get("x-mcp-header") {
            let header = header.as_str().filter(|text| is_token(text)).ok_or("`x-mcp-header` is no field name")?;
            let kind = property.get("type").and_then(Value::as_str).unwrap_or_default();
            if !matches!(kind, "string" | "integer" | "boolean") {
                return Err(format!("`x-mcp-header` of `{name}` is on a `{kind}`: only string, integer and boolean are mirrored"));
            }
            found.push(ParamHeader { header: format!("mcp-param-{}", header.to_ascii_lowercase()), path: path.clone() });
        }
        walk(property, path, found)?;
        path.pop();
    }
    Ok(())
}

/// Counts annotations wherever they stand; a property of that very name is none.
fn count(value: &Value) -> usize {
    match value {
        Value::Object(all) => all
            .iter()
            .map(|(key, value)| match key.as_str() {
                "x-mcp-header" if value.is_string() => 1,
                "default" | "const" | "enum" | "examples" => 0,
                _ => count(value),
            })
            .sum(),
        Value::Array(all) => all.iter().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Whether a text is a field name (RFC 9110, section 5.1).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offers(tool: Value) -> Offers {
        Offers { namespace: "ns_".to_owned(), tools: vec![tool.to_string()], ..Offers::default() }
    }

    #[test]
    fn a_tool_gets_its_full_name_and_its_headers() {
        let schema = json!({"type": "object", "properties": {"where": {"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}}}, "x-mcp-header": {"type": "string"}}});
        let checked = Checked::of("p", offers(json!({"name": "t", "inputSchema": schema}))).expect("it is good");
        let tool = &checked.tools[0];
        assert_eq!((tool.full_name.as_str(), tool.name.as_str()), ("ns_t", "t"));
        assert_eq!(*tool.headers, [ParamHeader { header: "mcp-param-region".to_owned(), path: vec!["where".into(), "region".into()] }]);
        assert!(tool.json.contains("\"ns_t\""));
    }

    #[test]
    fn what_clients_reject_is_refused_by_name() {
        let object = |properties: Value| json!({"type": "object", "properties": properties});
        for (tool, why) in [
            (json!({"inputSchema": {"type": "object"}}), "`name`"),
            (json!({"name": "T", "inputSchema": {"type": "object"}}), "a-z"),
            (json!({"name": "t"}), "`inputSchema` is missing"),
            (json!({"name": "t", "inputSchema": {"type": "array"}}), "the root"),
            (json!({"name": "t", "inputSchema": {"type": "object", "properties": {"a": {"type": 7}}}}), "no usable JSON Schema"),
            (json!({"name": "t", "inputSchema": {"type": "object", "$ref": "https://example.com/schema.json"}}), "no usable JSON Schema"),
            (json!({"name": "t", "inputSchema": object(json!({"a": {"type": "number", "x-mcp-header": "A"}}))}), "only string"),
            (json!({"name": "t", "inputSchema": object(json!({"a": {"type": "string", "x-mcp-header": "A b"}}))}), "field name"),
            (
                json!({"name": "t", "inputSchema": object(json!({"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}))}),
                "twice",
            ),
            (
                json!({"name": "t", "inputSchema": object(json!({"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}))}),
                "not fixed",
            ),
        ] {
            let refused = Checked::of("p", offers(tool.clone())).expect_err(&tool.to_string());
            assert!(refused.contains(why), "{tool}: {refused}");
        }
    }

    #[test]
    fn members_of_the_wrong_type_are_refused_by_name() {
        let tool = |key: &str, value: Value| {
            let mut tool = json!({"name": "t", "inputSchema": {"type": "object"}});
            tool[key] = value;
            offers(tool)
        };
        let resource = |key: &str, value: Value| {
            let mut resource = json!({"uri": "a://b", "name": "b"});
            resource[key] = value;
            Offers { resources: vec![resource.to_string()], ..Offers::default() }
        };
        let prompt = |key: &str, value: Value| {
            let mut prompt = json!({"name": "p"});
            prompt[key] = value;
            Offers { prompts: vec![prompt.to_string()], ..Offers::default() }
        };
        for (offered, why) in [
            (tool("title", json!(7)), "`title` is not a text"),
            (tool("description", json!(null)), "`description` is not a text"),
            (tool("annotations", json!([])), "`annotations` is not an object"),
            (tool("_meta", json!("x")), "`_meta` is not an object"),
            (tool("icons", json!({})), "`icons` is not a list of objects"),
            (tool("outputSchema", json!({"type": "array"})), "the root of `outputSchema`"),
            (tool("outputSchema", json!({"type": "object", "properties": {"a": true}})), "`a` in the `properties` of `outputSchema`"),
            (tool("inputSchema", json!({"type": "object", "properties": {"a": false}})), "`a` in the `properties` of `inputSchema`"),
            (resource("mimeType", json!(["text/plain"])), "`mimeType` is not a text"),
            (resource("size", json!("7")), "`size` is not a number"),
            (prompt("arguments", json!(["a"])), "`arguments` is not a list of objects"),
        ] {
            let refused = Checked::of("p", offered).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
        let good = tool("icons", json!([{"src": "https://example.com/a.png"}]));
        Checked::of("p", good).expect("icons as they should be");
    }

    #[test]
    fn what_the_host_offers_is_refused_of_others() {
        let start = json!({"name": "start", "inputSchema": {"type": "object"}}).to_string();
        let one = |value: Value| vec![value.to_string()];
        for (offered, why) in [
            (Offers { tools: vec![start], ..Offers::default() }, "the tool `start` is on offer already"),
            (Offers { prompts: one(json!({"name": "hand_off"})), ..Offers::default() }, "the prompt `hand_off` is on offer already"),
            (Offers { resources: one(json!({"uri": "pointsman://tasks", "name": "x"})), ..Offers::default() }, "already"),
            (Offers { resources: one(json!({"uri": "pointsman://x", "name": "x"})), ..Offers::default() }, "the host's own"),
            (Offers { templates: one(json!({"uriTemplate": "pointsman://task/{id}", "name": "x"})), ..Offers::default() }, "already"),
            (Offers { templates: one(json!({"uriTemplate": "pointsman://x/{id}", "name": "x"})), ..Offers::default() }, "the host's own"),
        ] {
            let refused = Checked::of("p", offered).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }
}
