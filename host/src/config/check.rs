//! The check: every value against its key's shape, every name against what it must name. Collects all problems.
//!
//! Also makes paths absolute, because only here it is known which layer a path came from.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use figment::value::{Dict, Tag, Value};

use super::layers::{Layer, Layers, Part, Step, dotted};
use super::problem::{Place, Problem, nearest};
use super::schema::{CONFIG_VERSION, Key, Need, ROOT, SHIPPED, Shape, WHO, WHO_WORDS, homes_of};
use super::{Environment, access};
use crate::ports::plugins::World;
use crate::ports::registry::is_url;

/// Where a plugin is asked for.
#[derive(Debug)]
pub(super) struct Use {
    /// Which.
    pub(super) plugin: String,
    /// To decide what.
    pub(super) world: World,
    path: Vec<Step>,
    tag: Tag,
}

/// Returns the problems of the merged values, and makes their paths absolute.
pub(super) fn check(layers: &Layers, environment: &Environment, values: &mut Value) -> Vec<Problem> {
    let mut check = Check { layers, environment, problems: Vec::new() };
    check.version_is_named();
    if let Value::Dict(tag, dict) = values {
        check.table(&mut Vec::new(), *tag, dict, &ROOT);
    }
    let uses = uses(values);
    check.plugins(values, &uses);
    check.unique(values, "project", "slug");
    check.unique(values, "check", "name");
    check.unique(values, "agent", "plugin");
    check.unique(values, "provider", "plugin");
    check.sources(values);
    check.projects_are_known(values);
    check.context_rules_name_keys(values);
    check.problems.extend(access::check(layers, values));
    check.problems
}

/// Returns every place where a plugin is asked for, in the order of the sections.
pub(super) fn uses(values: &Value) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut add = |world: World, path: Vec<Step>, value: Option<&Value>| {
        if let Some(Value::String(tag, plugin)) = value {
            uses.push(Use { plugin: plugin.clone(), world, path, tag: *tag });
        }
    };
    let key = |name: &str| Step::Key(name.to_owned());
    for (i, value) in list(values.find_ref("routing.plugins")).enumerate() {
        add(World::Router, vec![key("routing"), key("plugins"), Step::Item(i)], Some(value));
    }
    for (section, entry, world) in TABLES {
        for (i, table) in list(values.find_ref(&format!("{section}.{entry}"))).enumerate() {
            add(world, vec![key(section), key(entry), Step::Item(i), key("plugin")], table.find_ref("plugin"));
        }
    }
    for (section, world) in [("agent", World::Agent), ("provider", World::McpProvider)] {
        for (i, table) in list(values.find_ref(section)).enumerate() {
            add(world, vec![key(section), Step::Item(i), key("plugin")], table.find_ref("plugin"));
        }
    }
    add(World::Workflow, vec![key("workflow"), key("plugin")], values.find_ref("workflow.plugin"));
    add(World::Policy, vec![key("policy"), key("plugin")], values.find_ref("policy.plugin"));
    shadows(values, &mut uses);
    uses
}

/// The lists of tables that bind plugins: section, list, what is decided there.
const TABLES: [(&str, &str, World); 5] = [
    ("routing", "binding", World::Router),
    ("merging", "strategy", World::Merger),
    ("context", "reconciler", World::Reconciler),
    ("workflow", "binding", World::Workflow),
    ("policy", "binding", World::Policy),
];

/// Adds the plugins that are asked beside another: each is used where that one is.
fn shadows(values: &Value, uses: &mut Vec<Use>) {
    let Some(own) = values.find_ref("plugins").and_then(Value::as_dict) else { return };
    for (name, table) in own {
        let Some(Value::String(tag, beside)) = table.find_ref("shadow_of") else { continue };
        let is_used = uses.iter().any(|used| used.plugin == *name);
        let Some(world) = uses.iter().find(|used| used.plugin == *beside).map(|used| used.world).filter(|_| !is_used) else { continue };
        let path = ["plugins", name.as_str(), "shadow_of"].map(|step| Step::Key(step.to_owned())).to_vec();
        uses.push(Use { plugin: name.clone(), world, path, tag: *tag });
    }
}

impl Use {
    /// Returns where the plugin is named.
    pub(super) fn place(&self, layers: &Layers) -> Option<String> {
        layers.place(&self.path, self.tag, Part::Value).short()
    }
}

/// Returns where the keys of a plugin's table are written, those that no layer but the defaults sets left out.
pub(super) fn written_keys(layers: &Layers, values: &Value, plugin: &str) -> BTreeMap<String, String> {
    let table = values.find_ref("plugins").and_then(Value::as_dict).and_then(|all| all.get(plugin)).and_then(Value::as_dict);
    let place = |(key, value): (&String, &Value)| {
        let path = ["plugins", plugin, key.as_str()].map(|step| Step::Key(step.to_owned()));
        Some((key.clone(), layers.place(&path, value.tag(), Part::Key).short()?))
    };
    table.into_iter().flatten().filter_map(place).collect()
}

/// Returns whether somebody wrote a value, rather than the host's defaults.
pub(super) fn is_written(layers: &Layers, values: &Value, path: &str) -> bool {
    values.find_ref(path).is_some_and(|value| layers.layer(value.tag()) != Layer::Defaults)
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

/// Returns whether a component of a world can be used as one of another: an agent may offer MCP as well. Whether it does is
/// seen at its load.
fn fits(world: World, used: World) -> bool {
    world == used || (world == World::Agent && used == World::McpProvider)
}

/// What an operator calls a plugin of this world.
fn role(world: World) -> &'static str {
    match world {
        World::Router => "a router",
        World::Merger => "a merger",
        World::Reconciler => "a reconciler",
        World::Workflow => "a workflow",
        World::Policy => "a policy",
        World::Agent => "an agent",
        World::McpProvider => "a provider",
    }
}

/// Returns a value as it would be written, cut to a length that fits a line.
fn written(value: &Value) -> String {
    match value {
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "a list".to_owned(),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => {
            let text = serde_json::to_string(value).unwrap_or_else(|_| "?".to_owned());
            if text.chars().count() > 60 { format!("{}…", text.chars().take(59).collect::<String>()) } else { text }
        }
    }
}

struct Check<'a> {
    layers: &'a Layers,
    environment: &'a Environment,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn report(&mut self, path: &[Step], tag: Tag, part: Part, what: String, help: Option<String>) {
        let place = self.layers.place(path, tag, part);
        self.problems.push(Problem { place, what, help });
    }

    /// A file says for which version it was written, so that a later host can read it as it was meant.
    fn version_is_named(&mut self) {
        if let Some(file) = &self.layers.file
            && !file.values().contains_key("config_version")
        {
            self.problems.push(Problem {
                place: Place::WholeFile(file.path.clone()),
                what: "`config_version` is missing".to_owned(),
                help: Some(format!("write `config_version = {CONFIG_VERSION}` as the first line")),
            });
        }
    }

    fn table(&mut self, path: &mut Vec<Step>, tag: Tag, dict: &mut Dict, keys: &'static [Key]) {
        for (name, value) in dict.iter_mut() {
            path.push(Step::Key(name.clone()));
            match keys.iter().find(|key| key.name == name) {
                Some(key) => self.value(path, value, &key.shape),
                None => self.unknown(path, value.tag(), name, keys),
            }
            path.pop();
        }
        for key in keys.iter().filter(|key| key.need == Need::Must && !dict.contains_key(key.name)) {
            let what = format!("`{}` has no `{}`", dotted(path), key.name);
            self.report(path, tag, Part::Key, what, Some(format!("add `{} = …`: {}", key.name, expected(&key.shape))));
        }
    }

    fn unknown(&mut self, path: &[Step], tag: Tag, name: &str, keys: &'static [Key]) {
        let around = dotted(&path[..path.len() - 1]);
        let what = if around.is_empty() { format!("unknown key `{name}`") } else { format!("unknown key `{name}` in `{around}`") };
        let homes = homes_of(name);
        let help = if let Some(key) = nearest(name, keys.iter().map(|key| key.name)) {
            format!("did you mean `{key}`?")
        } else if !homes.is_empty() {
            format!("`{name}` belongs in {}", homes.join(" or "))
        } else {
            let known: Vec<String> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
            format!("known here: {}", known.join(", "))
        };
        self.report(path, tag, Part::Key, what, Some(help));
    }

    fn value(&mut self, path: &mut Vec<Step>, value: &mut Value, shape: &'static Shape) {
        let tag = value.tag();
        match (shape, &mut *value) {
            (Shape::Table(keys), Value::Dict(_, dict)) => self.table(path, tag, dict, keys),
            (Shape::Tables(keys), Value::Array(_, tables)) => {
                for (i, table) in tables.iter_mut().enumerate() {
                    path.push(Step::Item(i));
                    self.entry(path, table, keys);
                    path.pop();
                }
            }
            (Shape::Named(keys), Value::Dict(_, dict)) => {
                for (name, table) in dict.iter_mut() {
                    path.push(Step::Key(name.clone()));
                    self.entry(path, table, keys);
                    path.pop();
                }
            }
            (Shape::List(inner), Value::Array(_, items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    path.push(Step::Item(i));
                    self.value(path, item, inner);
                    path.pop();
                }
            }
            (Shape::Any, Value::Dict(..)) | (Shape::Switch, Value::Bool(..)) => {}
            (Shape::Share, Value::Num(_, number))
                if number.to_f64().is_some_and(|share| (0.0..=1.0).contains(&share))
                    || number.to_i128().is_some_and(|share| (0..=1).contains(&share)) => {}
            (Shape::Path | Shape::PluginSource, Value::String(_, text)) if !text.is_empty() => self.path(path, tag, text, shape),
            (Shape::Text(form), Value::String(_, text)) if (form.fits)(text) => {}
            (Shape::Choice(choices), Value::String(_, text)) if choices.contains(&text.as_str()) => {}
            (Shape::Integer { min, max }, Value::Num(_, number))
                if number.to_i128().is_some_and(|n| (i128::from(*min)..=i128::from(*max)).contains(&n)) => {}
            (_, other) => self.wrong(path, other, shape),
        }
    }

    /// One of many tables.
    fn entry(&mut self, path: &mut Vec<Step>, value: &mut Value, keys: &'static [Key]) {
        let tag = value.tag();
        if let Value::Dict(_, dict) = value {
            self.table(path, tag, dict, keys);
        } else {
            self.wrong(path, value, &Shape::Table(keys));
        }
    }

    fn wrong(&mut self, path: &[Step], value: &Value, shape: &Shape) {
        let what = format!("`{}` is {}, expected {}", dotted(path), written(value), expected(shape));
        let help = match (shape, value) {
            (Shape::Choice(choices), Value::String(_, text)) => {
                nearest(text, choices.iter().copied()).map(|choice| format!("did you mean \"{choice}\"?"))
            }
            (Shape::Text(form), Value::String(_, text)) if std::ptr::eq(*form, &WHO) => {
                nearest(text, WHO_WORDS).map(|word| format!("did you mean \"{word}\"?"))
            }
            (Shape::Integer { .. }, Value::String(_, text)) if text.parse::<i64>().is_ok() => Some("write it without quotes".to_owned()),
            (Shape::Switch, Value::String(_, text)) if matches!(text.as_str(), "true" | "false") => {
                Some("write it without quotes".to_owned())
            }
            (Shape::List(_), Value::String(..)) => Some(format!("write `[{}]`", written(value))),
            _ => None,
        };
        self.report(path, value.tag(), Part::Value, what, help);
    }

    /// Makes a path absolute in place, and looks whether a component is there at all.
    fn path(&mut self, path: &[Step], tag: Tag, text: &mut String, shape: &Shape) {
        if matches!(shape, Shape::PluginSource) && (text == "embedded" || is_url(text)) {
            return;
        }
        let full = self.absolute(text, tag);
        if matches!(shape, Shape::PluginSource) && !full.is_file() {
            let what = format!("`{}` is \"{text}\", but there is no such file", dotted(path));
            let help = "give the path of a component, as `pointsman plugin build DIR` writes it, or \"embedded\" for a shipped one";
            self.report(path, tag, Part::Value, what, Some(help.to_owned()));
        }
        *text = full.to_string_lossy().into_owned();
    }

    /// Returns a path seen from where it was written: the file's folder, or the working folder. `~/` is the home folder.
    fn absolute(&self, text: &str, tag: Tag) -> PathBuf {
        if let (Some(rest), Some(home)) = (text.strip_prefix("~/"), self.environment.get("HOME")) {
            return Path::new(home).join(rest);
        }
        let folder = &self.environment.folder;
        let base = match (self.layers.layer(tag), &self.layers.file) {
            (Layer::File, Some(file)) => file.path.parent().map_or_else(|| folder.clone(), |parent| folder.join(parent)),
            _ => folder.clone(),
        };
        clean(&base.join(text))
    }

    fn plugins(&mut self, values: &Value, uses: &[Use]) {
        let own: BTreeMap<String, Value> = values.find_ref("plugins").and_then(Value::as_dict).cloned().unwrap_or_default();
        let has_file = |name: &str| {
            own.get(name).and_then(|plugin| plugin.find_ref("source")).and_then(Value::as_str).is_some_and(|source| source != "embedded")
        };
        let said = |name: &str| own.get(name).and_then(|plugin| plugin.find_ref("world")).and_then(Value::as_str)?.parse::<World>().ok();
        let mut worlds: BTreeMap<&str, World> = BTreeMap::new();
        for used in uses {
            let shipped = SHIPPED.iter().find(|(name, _)| *name == used.plugin).map(|(_, world)| *world);
            let of_file = || said(&used.plugin).or_else(|| worlds.get(used.plugin.as_str()).copied());
            let known = if has_file(&used.plugin) { of_file() } else { shipped };
            let wanted = role(used.world);
            if let Some(world) = known.filter(|world| !fits(*world, used.world)) {
                let what = format!("`{}` names `{}`, which is {}; {wanted} is needed here", dotted(&used.path), used.plugin, role(world));
                let fitting: Vec<&str> = SHIPPED.iter().filter(|(_, world)| *world == used.world).map(|(name, _)| *name).collect();
                let help = match fitting.as_slice() {
                    [] => format!("none is shipped: name a component of yours, made for the world `{}`", used.world.name()),
                    fitting => format!("shipped: {}", fitting.join(", ")),
                };
                self.report(&used.path, used.tag, Part::Value, what, Some(help));
            } else if known.is_none() && !has_file(&used.plugin) {
                let fitting = SHIPPED.iter().filter(|(_, world)| *world == used.world).map(|(name, _)| *name);
                let help = match nearest(&used.plugin, fitting.chain(own.keys().map(String::as_str).filter(|name| has_file(name)))) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("for a component of your own add `[plugins.{}]` with `source = \"PATH.wasm\"`", used.plugin),
                };
                let what = format!("`{}` names `{}`, but there is no such plugin", dotted(&used.path), used.plugin);
                self.report(&used.path, used.tag, Part::Value, what, Some(help));
            }
            worlds.entry(&used.plugin).or_insert(used.world);
        }
        for (name, value) in &own {
            if !worlds.contains_key(name.as_str()) {
                let help = match nearest(name, worlds.keys().copied()) {
                    Some(used) => format!("did you mean `[plugins.{used}]`?"),
                    None => "name it in `routing.plugins`, a `[[merging.strategy]]`, a `[[context.reconciler]]`, `workflow.plugin`, \
                             `policy.plugin`, an `[[agent]]`, a `[[provider]]` or a `binding`, or beside another by `shadow_of`, or leave it out"
                        .to_owned(),
                };
                let path = [Step::Key("plugins".to_owned()), Step::Key(name.clone())];
                self.report(&path, value.tag(), Part::Key, format!("`plugins.{name}` is set up, but nothing uses that plugin"), Some(help));
            }
        }
    }

    /// A binding to a project that is not in the file is a slip: projects of other origin are served where `projects` is left out.
    fn projects_are_known(&mut self, values: &Value) {
        let known: Vec<&str> = list(values.find_ref("project")).filter_map(|project| project.find_ref("slug")?.as_str()).collect();
        let tables = TABLES.iter().map(|(section, entry, _)| vec![*section, *entry]);
        for section in tables.chain([vec!["context", "rule"], vec!["agent"], vec!["provider"]]) {
            let dots = section.join(".");
            for (i, table) in list(values.find_ref(&dots)).enumerate() {
                for (j, slug) in list(table.find_ref("projects")).enumerate() {
                    let Value::String(tag, text) = slug else { continue };
                    if let (false, Some(near)) = (known.contains(&text.as_str()), nearest(text, known.iter().copied())) {
                        let key = |name: &str| Step::Key(name.to_owned());
                        let mut path: Vec<Step> = section.iter().map(|name| key(name)).collect();
                        path.extend([Step::Item(i), key("projects"), Step::Item(j)]);
                        let what = format!("`{dots}.projects` names \"{text}\", but there is no such [[project]]");
                        self.report(&path, *tag, Part::Value, what, Some(format!("did you mean \"{near}\"?")));
                    }
                }
            }
        }
    }

    /// A rule about no key is a slip: about all of them it says `**`.
    fn context_rules_name_keys(&mut self, values: &Value) {
        for (i, rule) in list(values.find_ref("context.rule")).enumerate() {
            if let Some(Value::Array(tag, keys)) = rule.find_ref("keys")
                && keys.is_empty()
            {
                let key = |name: &str| Step::Key(name.to_owned());
                let path = [key("context"), key("rule"), Step::Item(i), key("keys")];
                let what = "`context.rule.keys` is empty: the rule is about nothing".to_owned();
                self.report(&path, *tag, Part::Value, what, Some("write `[\"**\"]` for all keys".to_owned()));
            }
        }
    }

    /// What a URL needs, and what only makes sense together.
    fn sources(&mut self, values: &Value) {
        let own = values.find_ref("plugins").and_then(Value::as_dict).cloned().unwrap_or_default();
        for (name, table) in &own {
            let text = |key: &str| table.find_ref(key).and_then(Value::as_str);
            let path = |key: &str| ["plugins", name.as_str(), key].map(|step| Step::Key(step.to_owned()));
            if text("source").is_some_and(is_url)
                && text("digest").is_none()
                && let Some(source) = table.find_ref("source")
            {
                let what = format!("`plugins.{name}.source` is a URL, and there is no `digest`");
                let help = "add `digest = \"…\"`, the BLAKE3 of the component (`b3sum` prints it): what comes from there later is not taken unseen";
                self.report(&path("source"), source.tag(), Part::Value, what, Some(help.to_owned()));
            }
            if let (Some("shadow"), None, Some(mode)) = (text("mode"), text("shadow_of"), table.find_ref("mode")) {
                let what = format!("`plugins.{name}.mode` is \"shadow\", and there is no `shadow_of`");
                let help = "add `shadow_of = \"NAME\"`: the plugin beside which it is asked";
                self.report(&path("mode"), mode.tag(), Part::Value, what, Some(help.to_owned()));
            }
            if text("shadow_of") == Some(name.as_str())
                && let Some(of) = table.find_ref("shadow_of")
            {
                let what = format!("`plugins.{name}.shadow_of` names itself");
                self.report(&path("shadow_of"), of.tag(), Part::Value, what, Some("name another plugin".to_owned()));
            }
        }
    }

    fn unique(&mut self, values: &Value, section: &str, key: &str) {
        let mut seen: Vec<&str> = Vec::new();
        for (i, table) in list(values.find_ref(section)).enumerate() {
            let Some(value @ Value::String(_, name)) = table.find_ref(key) else { continue };
            if seen.contains(&name.as_str()) {
                let path = [Step::Key(section.to_owned()), Step::Item(i), Step::Key(key.to_owned())];
                let what = format!("`{section}.{key}` is \"{name}\" a second time");
                self.report(&path, value.tag(), Part::Value, what, Some(format!("give each [[{section}]] a {key} of its own")));
            }
            seen.push(name);
        }
    }
}

/// Returns what a key takes, after "expected".
fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text(form) => form.expected.to_owned(),
        Shape::Path => "a path".to_owned(),
        Shape::PluginSource => "\"embedded\", the path of a component, or its URL".to_owned(),
        Shape::Share => "a number from 0 to 1".to_owned(),
        Shape::Integer { min, max } if min == max => format!("{min}"),
        Shape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Shape::Switch => "true or false".to_owned(),
        Shape::Choice(choices) => {
            let choices: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
            choices.join(" or ")
        }
        Shape::List(_) => "a list".to_owned(),
        Shape::Table(_) | Shape::Named(_) | Shape::Any => "a table".to_owned(),
        Shape::Tables(_) => "a list of tables".to_owned(),
    }
}

/// Returns a path without `.` and with `..` taken away where it follows a name. Nothing is read: links stay as they are.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if cleaned.file_name().is_some() => {
                cleaned.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::ParentDir | Component::Normal(_) => cleaned.push(part),
        }
    }
    cleaned
}
