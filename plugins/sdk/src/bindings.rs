//! The bindings generated from `wit/`, one module for each world and one for `setup`, which all worlds share.
//!
//! Each world is generated without `setup`, so that its export macros have one home and several worlds can be
//! enabled at once; the component builder joins the parts again.
#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::allow_attributes_without_reason,
    clippy::panic,
    clippy::too_many_lines,
    reason = "generated code"
)]

/// The export of `pointsman:types/setup`, and the import by which a panic says why.
pub mod setup {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-setup;
            world setup-part {
                import pointsman:types/panics@0.1.0;
                export pointsman:types/setup@0.1.0;
            }
        ",
        path: ["../../wit/types"],
        generate_all,
        pub_export_macro: true,
    });
}

/// The world `router`.
#[cfg(feature = "router")]
pub mod router {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-router;
            world router-part {
                import pointsman:types/symbols@0.1.0;
                export pointsman:router/routing@0.1.0;
            }
        ",
        path: ["../../wit/types", "../../wit/router"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

/// The world `merger`.
#[cfg(feature = "merger")]
pub mod merger {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-merger;
            world merger-part { export pointsman:merger/merging@0.1.0; }
        ",
        path: ["../../wit/types", "../../wit/merger"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

/// The world `reconciler`.
#[cfg(feature = "reconciler")]
pub mod reconciler {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-reconciler;
            world reconciler-part { export pointsman:reconciler/reconciling@0.1.0; }
        ",
        path: ["../../wit/types", "../../wit/reconciler"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

/// The world `workflow`.
#[cfg(feature = "workflow")]
pub mod workflow {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-workflow;
            world workflow-part { export pointsman:workflow/flow@0.1.0; }
        ",
        path: ["../../wit/types", "../../wit/workflow"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

/// The world `policy`.
#[cfg(feature = "policy")]
pub mod policy {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-policy;
            world policy-part { export pointsman:policy/gates@0.1.0; }
        ",
        path: ["../../wit/types", "../../wit/policy"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

/// The world `agent`.
#[cfg(feature = "agent")]
pub mod agent {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-agent;
            world agent-part {
                import pointsman:agent/lookups@0.1.0;
                import pointsman:agent/kv@0.1.0;
                import pointsman:types/log@0.1.0;
                export pointsman:agent/handling@0.1.0;
            }
        ",
        path: ["../../wit/types", "../../wit/agent"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}

/// The world `mcp-provider`.
#[cfg(feature = "mcp-provider")]
pub mod mcp_provider {
    wit_bindgen::generate!({
        inline: "
            package pointsman:sdk-mcp-provider;
            world mcp-provider-part {
                import pointsman:mcp-provider/calls@0.1.0;
                import pointsman:agent/lookups@0.1.0;
                import pointsman:types/log@0.1.0;
                export pointsman:mcp-provider/provider@0.1.0;
            }
        ",
        path: ["../../wit/types", "../../wit/agent", "../../wit/mcp-provider"],
        generate_all,
        pub_export_macro: true,
        additional_derives: [PartialEq],
    });
}
