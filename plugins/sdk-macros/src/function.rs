//! An attribute on the function that decides: a plugin is made around it that holds the configuration.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, Item, ItemFn, Result, Type};

use crate::arguments::Arguments;
use crate::block;

/// What a component may be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    Router,
    Merger,
    Reconciler,
    Workflow,
    Policy,
    Agent,
    McpProvider,
}

impl World {
    /// Returns the trait of the SDK.
    pub(crate) const fn trait_name(self) -> &'static str {
        match self {
            Self::Router => "Router",
            Self::Merger => "Merger",
            Self::Reconciler => "Reconciler",
            Self::Workflow => "Workflow",
            Self::Policy => "Policy",
            Self::Agent => "Agent",
            Self::McpProvider => "Provider",
        }
    }

    /// Returns the macro of the SDK that exports a type.
    pub(crate) fn export(self) -> Ident {
        let name = match self {
            Self::Router => "router",
            Self::Merger => "merger",
            Self::Reconciler => "reconciler",
            Self::Workflow => "workflow",
            Self::Policy => "policy",
            Self::Agent => "agent",
            Self::McpProvider => "mcp_provider",
        };
        Ident::new(&format!("export_{name}"), Span::call_site())
    }
}

/// Returns what was written, and the plugin made of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "two of the many kinds of item are taken")]
pub(crate) fn expand(world: World, arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    match syn::parse2(item)? {
        Item::Impl(written) => block::expand(world, arguments, &written),
        Item::Fn(written) => match world {
            World::Workflow | World::McpProvider => {
                let wanted = world.trait_name();
                Err(Error::new(written.sig.ident.span(), format!("this world asks several things: write `impl {wanted} for …`")))
            }
            World::Router | World::Merger | World::Reconciler | World::Policy | World::Agent => function(world, arguments, &written),
        },
        other => Err(Error::new(other.span(), format!("this attribute stands on a function or on `impl {} for …`", world.trait_name()))),
    }
}

/// The function that an author wrote.
struct Decision<'a> {
    written: &'a ItemFn,
    /// Its configuration; none where it takes none.
    config: Option<&'a Type>,
}

impl<'a> Decision<'a> {
    /// Checks that a function takes so many facts and perhaps a configuration. `example` shows how it is written.
    fn of(written: &'a ItemFn, facts: usize, example: &str) -> Result<Self> {
        let signature = &written.sig;
        let wrong = |span, what: &str| Err(Error::new(span, format!("{what}: write `{example}`; the configuration may be left out")));
        if let Some(part) = signature.asyncness.map(|part| part.span).or(signature.unsafety.map(|part| part.span)) {
            return wrong(part, "a decision is a plain function");
        }
        if !signature.generics.params.is_empty() {
            return wrong(signature.generics.span(), "a decision is made on one type of configuration");
        }
        let types: Vec<&Type> = signature
            .inputs
            .iter()
            .filter_map(|input| match input {
                FnArg::Typed(typed) => Some(typed.ty.as_ref()),
                FnArg::Receiver(_) => None,
            })
            .collect();
        if types.len() != signature.inputs.len() || !(facts..=facts + 1).contains(&types.len()) {
            return wrong(signature.ident.span(), &format!("it takes {} arguments", signature.inputs.len()));
        }
        let config = match types.get(facts) {
            None => None,
            Some(Type::Reference(reference)) if reference.mutability.is_none() => Some(reference.elem.as_ref()),
            Some(other) => return wrong(other.span(), "the configuration is borrowed"),
        };
        Ok(Self { written, config })
    }

    /// Returns the call of the function with these facts. Its place is that of the function's name, so that a type that does
    /// not fit is pointed at where it was written.
    fn call(&self, facts: &[&str]) -> TokenStream {
        let name = &self.written.sig.ident;
        let facts = facts.iter().map(|fact| Ident::new(fact, Span::mixed_site()));
        let config = self.config.map(|_| quote! { &self.0 });
        quote_spanned! { name.span() => #name(#(#facts,)* #config) }
    }
}

fn function(world: World, mut arguments: Arguments, written: &ItemFn) -> Result<TokenStream> {
    let (decision, decides) = match world {
        World::Router => {
            arguments.finish("")?;
            router(written)?
        }
        World::Reconciler => {
            arguments.finish("")?;
            reconciler(written)?
        }
        World::Policy => {
            arguments.finish("")?;
            policy(written)?
        }
        World::Merger => merger(written, &mut arguments).and_then(|made| arguments.finish("`hunks`, `file`, `paths`").map(|()| made))?,
        World::Agent => {
            agent(written, &mut arguments).and_then(|made| arguments.finish("`name`, `capabilities`, `events`").map(|()| made))?
        }
        World::Workflow | World::McpProvider => unreachable!("refused before"),
    };
    let no_config: Type = syn::parse_quote! { ::pointsman_sdk::NoConfig };
    let config = decision.config.unwrap_or(&no_config);
    let export = world.export();
    Ok(quote! {
        #written

        #[allow(dead_code, reason = "where nothing is exported the plugin is made by nobody")]
        const _: () = {
            #[derive(Debug)]
            struct Decider<C>(C);

            impl ::pointsman_sdk::Plugin for Decider<#config> {
                type Config = #config;
                fn new(config: Self::Config) -> ::core::result::Result<Self, ::std::string::String> {
                    ::core::result::Result::Ok(Self(config))
                }
            }

            #decides

            ::pointsman_sdk::#export!(Decider<#config>);
        };
    })
}

/// A function and the `impl` of its world's trait for what holds its configuration.
type Made<'a> = Result<(Decision<'a>, TokenStream)>;

fn of_config(decision: &Decision<'_>) -> TokenStream {
    decision.config.map_or_else(|| quote! { ::pointsman_sdk::NoConfig }, |config| quote! { #config })
}

fn router(written: &ItemFn) -> Made<'_> {
    let decision = Decision::of(written, 2, "fn route(message: &Message, candidates: &Candidates, config: &Config) -> Verdict")?;
    let (call, config) = (decision.call(&["message", "candidates"]), of_config(&decision));
    let (message, candidates) = (mixed("message"), mixed("candidates"));
    Ok((
        decision,
        quote! {
            impl ::pointsman_sdk::router::Router for Decider<#config> {
                fn route(
                    &self,
                    #message: &::pointsman_sdk::router::Message<'_>,
                    #candidates: &::pointsman_sdk::router::Candidates<'_>,
                ) -> ::pointsman_sdk::router::Verdict {
                    #call
                }
            }
        },
    ))
}

fn reconciler(written: &ItemFn) -> Made<'_> {
    let decision = Decision::of(written, 1, "fn reconcile(edits: &Edits, config: &Config) -> Outcome")?;
    let (call, config, edits) = (decision.call(&["edits"]), of_config(&decision), mixed("edits"));
    Ok((
        decision,
        quote! {
            impl ::pointsman_sdk::reconciler::Reconciler for Decider<#config> {
                fn reconcile(&self, #edits: &::pointsman_sdk::reconciler::Edits<'_>) -> ::pointsman_sdk::reconciler::Outcome {
                    #call
                }
            }
        },
    ))
}

fn policy(written: &ItemFn) -> Made<'_> {
    let decision = Decision::of(written, 2, "fn check(gate: Gate, facts: &Facts, config: &Config) -> Verdict")?;
    let (call, config) = (decision.call(&["gate", "facts"]), of_config(&decision));
    let (gate, facts) = (mixed("gate"), mixed("facts"));
    Ok((
        decision,
        quote! {
            impl ::pointsman_sdk::policy::Policy for Decider<#config> {
                fn check(
                    &self,
                    #gate: ::pointsman_sdk::policy::Gate,
                    #facts: &::pointsman_sdk::policy::Facts,
                ) -> ::pointsman_sdk::policy::Verdict {
                    #call
                }
            }
        },
    ))
}

fn merger<'a>(written: &'a ItemFn, arguments: &mut Arguments) -> Made<'a> {
    let (hunks, file) = (arguments.word("hunks")?, arguments.word("file")?);
    if hunks == file {
        return Err(Error::new(written.sig.ident.span(), "say how much it sees: `#[pointsman_sdk::merger(hunks)]` or `(file)`"));
    }
    let paths = arguments.value("paths")?;
    let (decision, scope, method) = if hunks {
        let decision = Decision::of(written, 2, "fn merge(place: &Place, hunk: &Hunk, config: &Config) -> HunkOutcome")?;
        let (call, place, hunk) = (decision.call(&["place", "hunk"]), mixed("place"), mixed("hunk"));
        let method = quote! {
            fn merge_hunk(
                &self,
                #place: &::pointsman_sdk::merger::Place,
                #hunk: &::pointsman_sdk::merger::Hunk,
            ) -> ::pointsman_sdk::merger::HunkOutcome {
                #call
            }
        };
        (decision, quote! { Hunks }, method)
    } else {
        let decision = Decision::of(written, 1, "fn merge(file: &File, config: &Config) -> FileOutcome")?;
        let (call, file) = (decision.call(&["file"]), mixed("file"));
        let method = quote! {
            fn merge_file(&self, #file: &::pointsman_sdk::merger::File<'_>) -> ::pointsman_sdk::merger::FileOutcome {
                #call
            }
        };
        (decision, quote! { File }, method)
    };
    let config = of_config(&decision);
    let paths = listed(paths.as_ref());
    Ok((
        decision,
        quote! {
            impl ::pointsman_sdk::merger::Merger for Decider<#config> {
                fn describe(&self) -> ::pointsman_sdk::merger::Description {
                    ::pointsman_sdk::merger::Description { scope: ::pointsman_sdk::merger::Scope::#scope, paths: #paths }
                }
                #method
            }
        },
    ))
}

fn agent<'a>(written: &'a ItemFn, arguments: &mut Arguments) -> Made<'a> {
    let decision = Decision::of(written, 1, "fn handle(event: &Event, config: &Config) -> Result<Vec<Action>, String>")?;
    let (call, config, event) = (decision.call(&["event"]), of_config(&decision), mixed("event"));
    let name = match arguments.value("name")? {
        Some(name) => in_config(&quote! { ::std::string::String::from(#name) }),
        None => quote! { ::std::string::String::from(::core::env!("CARGO_PKG_NAME")) },
    };
    let capabilities = listed(arguments.value("capabilities")?.as_ref());
    let events = listed(arguments.value("events")?.as_ref());
    Ok((
        decision,
        quote! {
            impl ::pointsman_sdk::agent::Agent for Decider<#config> {
                fn describe(&self) -> ::pointsman_sdk::agent::Description {
                    ::pointsman_sdk::agent::Description { name: #name, capabilities: #capabilities, events: #events }
                }
                fn handle(
                    &self,
                    #event: &::pointsman_sdk::agent::Event,
                ) -> ::core::result::Result<::std::vec::Vec<::pointsman_sdk::agent::Action>, ::std::string::String> {
                    #call
                }
            }
        },
    ))
}

/// Returns a name that an author's code cannot mean.
fn mixed(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Returns an author's expression as a list of texts; an empty one where there is none.
fn listed(texts: Option<&syn::Expr>) -> TokenStream {
    let Some(texts) = texts else { return quote! { ::std::vec::Vec::new() } };
    in_config(&quote! { ::core::iter::IntoIterator::into_iter(#texts).map(::core::convert::Into::into).collect() })
}

/// Returns an author's expression with `config` in reach.
fn in_config(expression: &TokenStream) -> TokenStream {
    let config = Ident::new("config", Span::call_site());
    quote! {{
        #[allow(unused_variables, reason = "an author may name it or not")]
        let #config = &self.0;
        #expression
    }}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(world: World, arguments: TokenStream, item: TokenStream) -> String {
        expand(world, arguments, item).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_written_stays_and_a_plugin_is_made_of_it() {
        let written = quote! { fn route(m: &Message, c: &Candidates) -> Verdict { loop {} } };
        let expanded = expand(World::Router, TokenStream::new(), written.clone()).expect("a router").to_string();
        assert!(expanded.starts_with(&written.to_string()), "{expanded}");
        assert!(expanded.contains("route (message , candidates ,)") && expanded.contains("NoConfig"), "{expanded}");
        let with_config = quote! { fn check(gate: Gate, facts: &Facts, own: &my::Config) -> Verdict { loop {} } };
        let expanded = expand(World::Policy, TokenStream::new(), with_config).expect("a policy").to_string();
        assert!(expanded.contains("check (gate , facts , & self . 0)") && expanded.contains("type Config = my :: Config"), "{expanded}");
    }

    #[test]
    fn errors_show_how_it_is_written() {
        let none = TokenStream::new;
        let few = refused(World::Router, none(), quote! { fn route(m: &Message) -> Verdict { loop {} } });
        assert_eq!(
            few,
            "it takes 1 arguments: write `fn route(message: &Message, candidates: &Candidates, config: &Config) -> Verdict`; \
             the configuration may be left out"
        );
        let owned = refused(World::Reconciler, none(), quote! { fn reconcile(e: &Edits, config: Config) -> Outcome { loop {} } });
        assert!(owned.starts_with("the configuration is borrowed"), "{owned}");
        let several = refused(World::Workflow, none(), quote! { fn branch_name() {} });
        assert_eq!(several, "this world asks several things: write `impl Workflow for …`");
        let other = refused(World::Policy, none(), quote! { impl Router for Config {} });
        assert_eq!(other, "write `impl Policy for …`, the configuration's type in its place");
        assert!(refused(World::Router, none(), quote! { struct A; }).contains("on a function or on `impl Router for …`"));
        assert!(refused(World::Agent, none(), quote! { async fn handle(e: &Event) {} }).contains("plain function"));
    }

    #[test]
    fn arguments_are_those_of_the_world() {
        let merge = || quote! { fn merge(f: &File) -> FileOutcome { loop {} } };
        assert!(refused(World::Merger, TokenStream::new(), merge()).contains("say how much it sees"));
        assert!(refused(World::Merger, quote! { file, path = ["a"] }, merge()).contains("there is no argument `path`"));
        assert!(refused(World::Merger, quote! { file = 1 }, merge()).contains("takes no value"));
        assert!(refused(World::Router, quote! { hunks }, quote! { fn r(m: &M, c: &C) {} }).contains("takes none here"));
        expand(World::Merger, quote! { file, paths = ["*.md"] }, merge()).expect("a merger");
        let handle = quote! { fn handle(e: &Event) -> Result<Vec<Action>, String> { loop {} } };
        expand(World::Agent, quote! { name = "n", events = ["task.*"] }, handle).expect("an agent");
    }
}
