//! The repository: documents, module layering, and examples.

mod code_in_docs;
mod examples;
mod module_layering;
mod readme;
