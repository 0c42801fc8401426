//! The layers of settings, the later ones first to be heard: shipped defaults, file, environment, flags; and where in
//! them each value stands.
//!
//! Owns: reading the file, naming the variables, merging by figment. Must not know: what a key means.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml_edit::{Document, Item, TableLike};

use super::problem::{Place, Problem, nearest};
use super::schema::{Leaf, Shape, leaves};
use super::{Environment, Flags, RESERVED_VARIABLES, VARIABLE_PREFIX, WATCH_VARIABLES};

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A step into the tree of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a table.
    Key(String),
    /// Into a list.
    Item(usize),
}

/// Returns a path as it is written in messages: positions in lists are left to the place.
pub(super) fn dotted(path: &[Step]) -> String {
    let keys: Vec<&str> = path
        .iter()
        .filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        })
        .collect();
    keys.join(".")
}

/// What of an entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
}

/// Who set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// The host.
    Defaults,
    /// The file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flags,
}

impl Layer {
    const fn name(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flags => "flags",
        }
    }
}

struct Values {
    layer: Layer,
    dict: Dict,
}

impl Provider for Values {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.layer.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// A configuration file that is TOML.
pub(super) struct File {
    /// As it was named.
    pub(super) path: PathBuf,
    document: Document<String>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl File {
    /// Returns the file's content, found at `full`, named `path` in messages.
    ///
    /// # Errors
    /// The problem that keeps it from being read.
    pub(super) fn read(path: &Path, full: &Path) -> Result<Self, Problem> {
        let whole = |what: String, help: &str| Problem { place: Place::WholeFile(path.to_owned()), what, help: Some(help.to_owned()) };
        let unreadable = |error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                let help = "check --config, or run `pointsman init` in the repository to write one";
                return whole("there is no such configuration file".to_owned(), help);
            }
            whole(format!("the configuration file cannot be read: {error}"), "check its owner and mode")
        };
        let size = std::fs::metadata(full).map_err(unreadable)?;
        if size.len() > FILE_BYTES_MAX {
            return Err(whole("the configuration file is larger than 1 MiB".to_owned(), "is it the right file?"));
        }
        let bytes = std::fs::read(full).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            whole(format!("the file is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()), "save it as UTF-8")
        })?;
        Self::parse(path, text)
    }

    /// Returns the content of a text.
    ///
    /// # Errors
    /// The first place that is not TOML.
    pub(super) fn parse(path: &Path, text: String) -> Result<Self, Problem> {
        match Document::parse(text.clone()) {
            Ok(document) => Ok(Self { path: path.to_owned(), document }),
            Err(error) => Err(Problem {
                place: place_in(path, &text, error.span().unwrap_or(0..0)),
                what: format!("not TOML: {}", error.message().lines().collect::<Vec<_>>().join(", ")),
                help: None,
            }),
        }
    }

    /// Returns the file's values.
    pub(super) fn values(&self) -> Dict {
        table_values(self.document.as_table())
    }

    fn place(&self, path: &[Step], part: Part) -> Place {
        let span = locate(self.document.as_item(), path, part).unwrap_or(0..0);
        place_in(&self.path, self.document.raw(), span)
    }
}

fn place_in(path: &Path, text: &str, span: Range<usize>) -> Place {
    let start = span.start.min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_text = text[line_start..].lines().next().unwrap_or("");
    let end = span.end.clamp(start, (line_start + line_text.len()).max(start));
    Place::File {
        path: path.to_owned(),
        line: text[..line_start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        text: line_text.to_owned(),
        width: text[start..end].chars().count(),
    }
}

/// A node of the parsed file.
#[derive(Clone, Copy)]
enum Node<'a> {
    Item(&'a Item),
    Table(&'a toml_edit::Table),
    Value(&'a toml_edit::Value),
}

impl<'a> Node<'a> {
    fn table(self) -> Option<&'a dyn TableLike> {
        match self {
            Self::Item(item) => item.as_table_like(),
            Self::Table(table) => Some(table),
            Self::Value(value) => value.as_inline_table().map(|table| table as &dyn TableLike),
        }
    }

    fn entry(self, position: usize) -> Option<Self> {
        match self {
            Self::Item(Item::ArrayOfTables(tables)) => tables.get(position).map(Node::Table),
            Self::Item(item) => item.as_array()?.get(position).map(Node::Value),
            Self::Value(value) => value.as_array()?.get(position).map(Node::Value),
            Self::Table(_) => None,
        }
    }

    fn span(self) -> Option<Range<usize>> {
        match self {
            Self::Item(item) => item.span(),
            Self::Table(table) => table.span(),
            Self::Value(value) => value.span(),
        }
    }

    fn is_section(self) -> bool {
        matches!(self, Self::Table(_) | Self::Item(Item::Table(_) | Item::ArrayOfTables(_)))
    }
}

/// Returns where an entry stands; where it stands nowhere itself (a missing key, a table made of dotted keys), the
/// nearest entry around it.
fn locate(root: &Item, path: &[Step], part: Part) -> Option<Range<usize>> {
    let mut span = None;
    let mut node = Node::Item(root);
    for (depth, step) in path.iter().enumerate() {
        let is_last = depth + 1 == path.len();
        let own = match step {
            Step::Key(name) => {
                let Some((key, item)) = node.table().and_then(|table| table.get_key_value(name)) else { break };
                node = Node::Item(item);
                if is_last && part == Part::Value && !node.is_section() { node.span() } else { key.span().or_else(|| node.span()) }
            }
            Step::Item(position) => {
                let Some(inner) = node.entry(*position) else { break };
                node = inner;
                node.span()
            }
        };
        span = own.or(span);
    }
    span
}

fn table_values(table: &dyn TableLike) -> Dict {
    table.iter().filter_map(|(key, item)| Some((key.to_owned(), item_value(item)?))).collect()
}

fn item_value(item: &Item) -> Option<Value> {
    match item {
        Item::None => None,
        Item::Value(value) => Some(plain_value(value)),
        Item::Table(table) => Some(table_values(table).into()),
        Item::ArrayOfTables(tables) => Some(Value::from(tables.iter().map(|table| Value::from(table_values(table))).collect::<Vec<_>>())),
    }
}

fn plain_value(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::from(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(truth) => Value::from(*truth.value()),
        toml_edit::Value::Datetime(time) => Value::from(time.value().to_string()),
        toml_edit::Value::Array(array) => Value::from(array.iter().map(plain_value).collect::<Vec<_>>()),
        toml_edit::Value::InlineTable(table) => Value::from(table_values(table)),
    }
}

/// All layers, merged.
#[derive(Debug)]
pub(super) struct Layers {
    figment: Figment,
    /// The file, if there is one.
    pub(super) file: Option<File>,
}

impl Layers {
    /// Returns the merged layers, and what is wrong with the names of variables.
    pub(super) fn merge(defaults: Dict, file: Option<File>, environment: &Environment, flags: &Flags) -> (Self, Vec<Problem>) {
        let (variables, problems) = environment_values(environment);
        let from_file = file.as_ref().map(File::values).unwrap_or_default();
        let figment = Figment::new()
            .merge(Values { layer: Layer::Defaults, dict: defaults })
            .merge(Values { layer: Layer::File, dict: from_file })
            .merge(Values { layer: Layer::Environment, dict: variables })
            .merge(Values { layer: Layer::Flags, dict: flag_values(flags) });
        (Self { figment, file }, problems)
    }

    /// Returns the merged values.
    pub(super) fn values(&self) -> Value {
        self.figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()))
    }

    /// Returns who set the value of this tag.
    pub(super) fn layer(&self, tag: Tag) -> Layer {
        let name = self.figment.get_metadata(tag).map(|metadata| metadata.name.as_ref());
        [Layer::File, Layer::Environment, Layer::Flags].into_iter().find(|layer| name == Some(layer.name())).unwrap_or(Layer::Defaults)
    }

    /// Returns where a value of this path and tag stands.
    pub(super) fn place(&self, path: &[Step], tag: Tag, part: Part) -> Place {
        match (self.layer(tag), &self.file) {
            (Layer::File, Some(file)) => file.place(path, part),
            (Layer::Environment, _) => Place::Variable(variable_of(path)),
            (Layer::Flags, _) => flag_of(path).map_or(Place::Nowhere, Place::Flag),
            (Layer::File | Layer::Defaults, _) => Place::Nowhere,
        }
    }
}

fn variable_of(path: &[Step]) -> String {
    let known = leaves().into_iter().find(|leaf| {
        leaf.path.len() <= path.len() && leaf.path.iter().zip(path).all(|(name, step)| matches!(step, Step::Key(key) if key == name))
    });
    known.map_or_else(|| format!("{VARIABLE_PREFIX}…"), |leaf| leaf.variable())
}

fn flag_of(path: &[Step]) -> Option<&'static str> {
    match dotted(path).as_str() {
        "data.dir" => Some("--data"),
        "server.bind" => Some("--bind"),
        "log.level" => Some("--log"),
        "log.format" => Some("--log-format"),
        _ => None,
    }
}

fn insert(dict: &mut Dict, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            dict.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let inner = dict.entry((*first).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn flag_values(flags: &Flags) -> Dict {
    let mut dict = Dict::new();
    let mut set = |path: &[&str], text: &Option<String>| {
        if let Some(text) = text {
            insert(&mut dict, path, Value::from(text.clone()));
        }
    };
    set(&["data", "dir"], &flags.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned()));
    set(&["server", "bind"], &flags.bind);
    set(&["log", "level"], &flags.log_level);
    set(&["log", "format"], &flags.log_format);
    dict
}

fn environment_values(environment: &Environment) -> (Dict, Vec<Problem>) {
    let leaves = leaves();
    let mut dict = Dict::new();
    let mut problems = Vec::new();
    for (name, text) in environment.settings() {
        let place = || Place::Variable(name.to_string_lossy().into_owned());
        let Some(known) = name.to_str() else {
            problems.push(Problem { place: place(), what: "the variable's name is not UTF-8".to_owned(), help: None });
            continue;
        };
        let Some(leaf) = leaves.iter().find(|leaf| leaf.variable() == known) else {
            if !is_reserved(known) {
                problems.push(Problem {
                    place: place(),
                    what: format!("no setting belongs to `{known}`"),
                    help: variable_help(known, &leaves),
                });
            }
            continue;
        };
        match text.to_str() {
            Some(text) => insert(&mut dict, &leaf.path, variable_value(text, leaf.shape)),
            None => problems.push(Problem { place: place(), what: "the variable's value is not UTF-8".to_owned(), help: None }),
        }
    }
    (dict, problems)
}

/// Returns whether a variable has the prefix and is no setting: ours, what a watch sets for its command, or what Kubernetes sets in every pod of a namespace
/// that has a service named `pointsman` (`POINTSMAN_SERVICE_HOST`, `POINTSMAN_PORT_7878_TCP_ADDR`).
fn is_reserved(name: &str) -> bool {
    let of_service = |rest: &str| rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
    RESERVED_VARIABLES.contains(&name) || WATCH_VARIABLES.contains(&name) || name.strip_prefix(VARIABLE_PREFIX).is_some_and(of_service)
}

/// Numbers and switches are such where one is wanted; lists are split at commas. Everything else is the text as it is.
fn variable_value(text: &str, shape: &Shape) -> Value {
    if let Shape::List(inner) = shape {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        return Value::from(parts.map(|part| variable_value(part, inner)).collect::<Vec<_>>());
    }
    if let (Shape::Switch, Ok(switch)) = (shape, text.trim().parse::<bool>()) {
        return Value::from(switch);
    }
    if let (Shape::Share, Ok(share)) = (shape, text.trim().parse::<f64>()) {
        return Value::from(share);
    }
    match text.trim().parse::<i64>() {
        Ok(number) if matches!(shape, Shape::Integer { .. }) => Value::from(number),
        _ => Value::from(text.to_owned()),
    }
}

/// Names are compared without the prefix that all of them share.
fn variable_help(given: &str, leaves: &[Leaf]) -> Option<String> {
    let bare = |name: &str| name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name).to_owned();
    let names: Vec<String> = leaves.iter().map(|leaf| bare(&leaf.variable())).chain(RESERVED_VARIABLES.map(bare)).collect();
    match nearest(&bare(given), names.iter().map(String::as_str)) {
        Some(name) => Some(format!("did you mean `{VARIABLE_PREFIX}{name}`?")),
        None => {
            Some(format!("variables are keys in capitals after `{VARIABLE_PREFIX}`, such as `POINTSMAN_SERVER_BIND` for `server.bind`"))
        }
    }
}
