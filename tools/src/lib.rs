//! See the workspace.
