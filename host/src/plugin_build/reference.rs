//! The reference of a world for authors, written from the comments of its WIT.
//!
//! Owns: the form of the text. Must not know: where it goes to.
//!
//! **Invariants:** the same WIT gives the same text, byte for byte; every function, type, field and case of a world is in it,
//! with its comment.

use std::fmt::Write;

use wit_parser::{
    Docs, Function, Handle, Interface, InterfaceId, Resolve, Result_, Type, TypeDef, TypeDefKind, TypeId, TypeOwner, WorldItem,
};

use super::BuildError;
use super::component::target;
use crate::ports::plugins::World;

/// Returns the name of the file that a world's reference is kept in.
#[must_use]
pub fn file_name(world: World) -> String {
    format!("{world}.md")
}

/// Returns the reference of a world, as Markdown.
///
/// # Errors
/// [`BuildError::BrokenWit`].
pub fn markdown(world: World) -> Result<String, BuildError> {
    let (resolve, id) = target(world, false)?;
    Ok(Page { resolve: &resolve, text: String::new() }.write(world, &resolve.worlds[id]))
}

/// Which way a world has an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Imported,
    Exported,
}

/// A text that grows.
struct Page<'a> {
    resolve: &'a Resolve,
    text: String,
}

impl Page<'_> {
    fn write(mut self, world: World, found: &wit_parser::World) -> String {
        self.line(format_args!("<!-- Written by `pointsman plugin reference` from wit/{world}/{world}.wit: change that, not this. -->\n"));
        self.line(format_args!("# World `{world}`\n"));
        let resolve = self.resolve;
        if let Some(package) = found.package.map(|id| &resolve.packages[id]) {
            self.paragraph(&package.docs);
            self.line(format_args!("Package `{}`.\n", package.name));
        }
        self.paragraph(&found.docs);
        let (imports, exports) = (interfaces(found.imports.values()), interfaces(found.exports.values()));
        self.line(format_args!("| interface | | what for |\n|---|---|---|"));
        for (ids, word) in [(&exports, "exported by the plugin"), (&imports, "given by the host")] {
            for id in ids {
                let (name, what) = (self.name(*id), cell(&resolve.interfaces[*id].docs));
                self.line(format_args!("| `{name}` | {word} | {what} |"));
            }
        }
        for (ids, way) in [(exports, Way::Exported), (imports, Way::Imported)] {
            for id in ids {
                self.interface(id, way);
            }
        }
        self.text
    }

    fn interface(&mut self, id: InterfaceId, way: Way) {
        let resolve = self.resolve;
        let interface: &Interface = &resolve.interfaces[id];
        let word = match way {
            Way::Exported => "The plugin exports it.",
            Way::Imported if interface.functions.is_empty() => "Types only.",
            Way::Imported => "The plugin may call it.",
        };
        self.line(format_args!("\n## Interface `{}`\n", self.name(id)));
        self.paragraph(&interface.docs);
        self.line(format_args!("{word}"));
        for function in interface.functions.values() {
            self.function(function);
        }
        for type_id in interface.types.values() {
            self.definition(id, *type_id);
        }
    }

    fn function(&mut self, function: &Function) {
        let params: Vec<String> = function.params.iter().map(|param| format!("{}: {}", param.name, self.type_text(&param.ty))).collect();
        let result = function.result.as_ref().map(|result| format!(" -> {}", self.type_text(result))).unwrap_or_default();
        self.line(format_args!("\n### Function `{}`\n", function.name));
        self.line(format_args!("```wit\n{}: func({}){result};\n```\n", function.name, params.join(", ")));
        self.paragraph(&function.docs);
    }

    fn definition(&mut self, within: InterfaceId, id: TypeId) {
        let resolve = self.resolve;
        let definition: &TypeDef = &resolve.types[id];
        let name = definition.name.as_deref().unwrap_or("_");
        match &definition.kind {
            TypeDefKind::Record(record) => {
                self.heading("Record", name, &definition.docs);
                self.line(format_args!("| field | type | meaning |\n|---|---|---|"));
                for field in &record.fields {
                    self.line(format_args!("| `{}` | `{}` | {} |", field.name, self.type_text(&field.ty), cell(&field.docs)));
                }
            }
            TypeDefKind::Variant(variant) => {
                self.heading("Variant", name, &definition.docs);
                self.line(format_args!("| case | carries | meaning |\n|---|---|---|"));
                for case in &variant.cases {
                    let carried = case.ty.as_ref().map_or_else(String::new, |ty| format!("`{}`", self.type_text(ty)));
                    self.line(format_args!("| `{}` | {carried} | {} |", case.name, cell(&case.docs)));
                }
            }
            TypeDefKind::Enum(cases) => {
                self.heading("Enum", name, &definition.docs);
                self.line(format_args!("| case | meaning |\n|---|---|"));
                for case in &cases.cases {
                    self.line(format_args!("| `{}` | {} |", case.name, cell(&case.docs)));
                }
            }
            TypeDefKind::Flags(flags) => {
                self.heading("Flags", name, &definition.docs);
                self.line(format_args!("| flag | meaning |\n|---|---|"));
                for flag in &flags.flags {
                    self.line(format_args!("| `{}` | {} |", flag.name, cell(&flag.docs)));
                }
            }
            TypeDefKind::Type(Type::Id(used)) if self.is_of_another(within, *used) => {
                let home = match resolve.types[*used].owner {
                    TypeOwner::Interface(home) => self.name(home),
                    TypeOwner::World(_) | TypeOwner::None => String::new(),
                };
                self.line(format_args!("\n`{name}` is that of `{home}`."));
            }
            TypeDefKind::Type(_)
            | TypeDefKind::Resource
            | TypeDefKind::Handle(_)
            | TypeDefKind::Tuple(_)
            | TypeDefKind::Option(_)
            | TypeDefKind::Result(_)
            | TypeDefKind::List(_)
            | TypeDefKind::Map(..)
            | TypeDefKind::FixedLengthList(..)
            | TypeDefKind::Future(_)
            | TypeDefKind::Stream(_)
            | TypeDefKind::Unknown => {
                self.heading("Type", name, &definition.docs);
                self.line(format_args!("```wit\ntype {name} = {};\n```", self.kind_text(&definition.kind)));
            }
        }
    }

    fn heading(&mut self, what: &str, name: &str, docs: &Docs) {
        self.line(format_args!("\n### {what} `{name}`\n"));
        self.paragraph(docs);
    }

    /// Writes a comment as a paragraph, if there is one.
    fn paragraph(&mut self, docs: &Docs) {
        if let Some(text) = docs.contents.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            self.line(format_args!("{text}\n"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
    }

    fn name(&self, id: InterfaceId) -> String {
        self.resolve.id_of(id).unwrap_or_default()
    }

    fn is_of_another(&self, within: InterfaceId, id: TypeId) -> bool {
        self.resolve.types[id].owner != TypeOwner::Interface(within)
    }

    /// Returns a type as WIT writes it.
    fn type_text(&self, ty: &Type) -> String {
        let plain = match ty {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::ErrorContext => "error-context",
            Type::Id(id) => {
                let definition = &self.resolve.types[*id];
                return definition.name.clone().unwrap_or_else(|| self.kind_text(&definition.kind));
            }
        };
        plain.to_owned()
    }

    /// Returns a type without a name as WIT writes it; of one that has its own form, the word for it.
    fn kind_text(&self, kind: &TypeDefKind) -> String {
        let one = |word: &str, ty: &Type| format!("{word}<{}>", self.type_text(ty));
        let perhaps = |word: &str, ty: &Option<Type>| ty.as_ref().map_or_else(|| word.to_owned(), |ty| one(word, ty));
        match kind {
            TypeDefKind::List(ty) => one("list", ty),
            TypeDefKind::Option(ty) => one("option", ty),
            TypeDefKind::Map(key, value) => format!("map<{}, {}>", self.type_text(key), self.type_text(value)),
            TypeDefKind::FixedLengthList(ty, length) => format!("list<{}, {length}>", self.type_text(ty)),
            TypeDefKind::Future(ty) => perhaps("future", ty),
            TypeDefKind::Stream(ty) => perhaps("stream", ty),
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<String> = tuple.types.iter().map(|ty| self.type_text(ty)).collect();
                format!("tuple<{}>", types.join(", "))
            }
            TypeDefKind::Result(Result_ { ok, err }) => match (ok, err) {
                (None, None) => "result".to_owned(),
                (Some(ok), None) => one("result", ok),
                (ok, Some(err)) => {
                    let ok = ok.as_ref().map_or_else(|| "_".to_owned(), |ok| self.type_text(ok));
                    format!("result<{ok}, {}>", self.type_text(err))
                }
            },
            TypeDefKind::Handle(Handle::Own(id)) => self.type_text(&Type::Id(*id)),
            TypeDefKind::Handle(Handle::Borrow(id)) => one("borrow", &Type::Id(*id)),
            TypeDefKind::Type(ty) => self.type_text(ty),
            TypeDefKind::Record(_)
            | TypeDefKind::Resource
            | TypeDefKind::Flags(_)
            | TypeDefKind::Variant(_)
            | TypeDefKind::Enum(_)
            | TypeDefKind::Unknown => kind.as_str().to_owned(),
        }
    }
}

/// Returns the interfaces among a world's items, in the order of the WIT. Worlds here have nothing else.
fn interfaces<'a>(items: impl Iterator<Item = &'a WorldItem>) -> Vec<InterfaceId> {
    let interface = |item: &WorldItem| match item {
        WorldItem::Interface { id, .. } => Some(*id),
        WorldItem::Function(_) | WorldItem::Type { .. } => None,
    };
    items.filter_map(interface).collect()
}

/// Returns a comment as one cell of a table.
fn cell(docs: &Docs) -> String {
    let words: Vec<&str> = docs.contents.as_deref().unwrap_or_default().split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_has_a_page_with_its_words() {
        for world in World::ALL {
            let text = markdown(world).expect("wit/ resolves");
            assert!(text.contains(&format!("# World `{world}`")), "{text}");
            assert!(text.contains("configure: func(json: string) -> result<_, string>;"), "{text}");
            assert_eq!(text, markdown(world).expect("again"), "the same text each time");
        }
    }

    #[test]
    fn fields_cases_and_functions_are_there_with_their_comments() {
        let router = markdown(World::Router).expect("wit/ resolves");
        for part in [
            "route: func(message: message, candidates: candidates) -> verdict;",
            "Decides one message. Pure: the same question has the same answer.",
            "| `priority` | `u8` | 0 (idle) to 9 (urgent); 4 is normal. |",
            "| `ranked` | `list<u32>` | To the first of these that takes it; who gives it back sends it to the next. |",
            "| `pass` |  | No opinion: the next router, or the host's default, decides. |",
            "| `human` | ",
            "`symbol` is that of `pointsman:types/symbols@0.1.0`.",
        ] {
            assert!(router.contains(part), "{part}\n{router}");
        }
        let merger = markdown(World::Merger).expect("wit/ resolves");
        assert!(merger.contains("base: option<list<u8>>"), "{merger}");
        let agent = markdown(World::Agent).expect("wit/ resolves");
        assert!(agent.contains("| `put` | `tuple<string, list<u8>>` | Keep a value: key and bytes. |"), "{agent}");
        assert!(agent.contains("handle: func(event: event) -> result<list<action>, string>;"), "{agent}");
    }
}
