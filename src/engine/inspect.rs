//! What a module is and what it asks for, read before it is compiled (`docs/api.md` section 6).

use super::error::Rejected;
use super::flavour::{Flavoured, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::{Error, sandbox::Sandbox};
use crate::domain::{MemoryKind, ModuleInfo};
use std::collections::HashMap;
use wasmparser::{
    Encoding, ExternalKind, FuncType, FuncValidatorAllocations, Payload, TypeRef, ValType, ValidPayload, Validator,
    WasmFeatures,
};

/// The function that a command starts at.
pub(super) const START: &str = "_start";
const MEMORY: &str = "memory";
const WASI: &str = "wasi_snapshot_preview1";

/// The types of the host functions that a module may import.
pub(super) struct KnownImports(HashMap<String, FuncType>);

impl KnownImports {
    /// Reads them off the linker, so that the two cannot disagree.
    pub(super) fn of(flavoured: &Flavoured) -> Result<Self, Error> {
        let mut store = wasmtime::Store::<Option<Sandbox>>::new(&flavoured.engine, None);
        let mut linker = wasmtime::Linker::<Option<Sandbox>>::new(&flavoured.engine);
        // Only the types are read: no function of this linker is ever called.
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |sandbox: &mut Option<Sandbox>| match sandbox {
            Some(sandbox) => sandbox.wasi(),
            None => unreachable!("a function of the linker that is only read was called"),
        })
        .map_err(|e| Error::Start(format!("{e:#}")))?;
        let names: Vec<_> = linker.iter(&mut store).map(|(_, name, item)| (name.to_owned(), item)).collect();
        let types = names.into_iter().filter_map(|(name, item)| {
            let ty = item.into_func()?.ty(&store);
            let params: Option<Vec<_>> = ty.params().map(value_type).collect();
            let results: Option<Vec<_>> = ty.results().map(value_type).collect();
            Some((name, FuncType::new(params?, results?)))
        });
        Ok(Self(types.collect()))
    }
}

fn value_type(ty: wasmtime::ValType) -> Option<ValType> {
    match ty {
        wasmtime::ValType::I32 => Some(ValType::I32),
        wasmtime::ValType::I64 => Some(ValType::I64),
        wasmtime::ValType::F32 => Some(ValType::F32),
        wasmtime::ValType::F64 => Some(ValType::F64),
        wasmtime::ValType::V128 | wasmtime::ValType::Ref(_) => None,
    }
}

/// What the engines in `flavour.rs` accept, said to the validator.
fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::MEMORY64
        | WasmFeatures::FLOATS
        | WasmFeatures::COMPONENT_MODEL
}

/// The most that the names of all imports and exports may take together, in bytes: they are kept and shown.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// What the pass over a module has found so far.
#[derive(Default)]
struct Found {
    names_bytes: usize,
    types: Vec<Option<FuncType>>,
    functions: Vec<u32>,
    imports: Vec<String>,
    exports: Vec<String>,
    exports_memory: bool,
    start: Option<u32>,
    memory: Option<(MemoryKind, u64)>,
    tables: u32,
}

pub(super) fn inspect(wasm: &[u8], known: &KnownImports) -> Result<ModuleInfo, Rejected> {
    let invalid = |e: wasmparser::BinaryReaderError| {
        Rejected::new(format_args!("not a valid module: {} (at byte {})", e.message(), e.offset()))
    };
    if !wasm.starts_with(b"\0asm") {
        return Err(Rejected::new("not a WebAssembly module: it does not start with \\0asm"));
    }
    let mut validator = Validator::new_with_features(features());
    let mut allocations = FuncValidatorAllocations::default();
    let mut found = Found::default();
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(invalid)?;
        if let Payload::Version { encoding: Encoding::Component, .. } = payload {
            return Err(Rejected::new(
                "a component: only core modules run here, WASI preview 1 commands (jco and wasm-tools make components; \
                 leave that step out)",
            ));
        }
        if let ValidPayload::Func(function, body) = validator.payload(&payload).map_err(invalid)? {
            let mut function = function.into_validator(allocations);
            function.validate(&body).map_err(invalid)?;
            allocations = function.into_allocations();
        }
        found.read(payload, known, invalid)?;
    }
    found.into_info()
}

impl Found {
    fn read(
        &mut self,
        payload: Payload<'_>,
        known: &KnownImports,
        invalid: impl Fn(wasmparser::BinaryReaderError) -> Rejected + Copy,
    ) -> Result<(), Rejected> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.map_err(invalid)?.into_types() {
                        self.types.push(match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.import(&import.map_err(invalid)?, known)?;
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.functions.push(ty.map_err(invalid)?);
                }
            }
            Payload::TableSection(section) => {
                self.tables = section.count();
                for table in section {
                    let initial = table.map_err(invalid)?.ty.initial;
                    if initial > TABLE_ELEMENTS_MAX as u64 {
                        return Err(Rejected::new(format_args!(
                            "a table of {initial} elements; at most {TABLE_ELEMENTS_MAX} are allowed"
                        )));
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memory(&memory.map_err(invalid)?)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    self.count_name(export.name.len())?;
                    self.exports.push(export.name.to_owned());
                    self.exports_memory |= export.name == MEMORY && export.kind == ExternalKind::Memory;
                    if export.name == START && export.kind == ExternalKind::Func {
                        self.start = Some(export.index);
                    }
                }
            }
            // The rest was validated and says nothing that we need.
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, import: &wasmparser::Import<'_>, known: &KnownImports) -> Result<(), Rejected> {
        let name = format!("{}.{}", import.module, import.name);
        let TypeRef::Func(ty) = import.ty else {
            return Err(Rejected::new(format_args!("imports {name}, which is no function: a guest brings its own")));
        };
        let expected = (import.module == WASI).then(|| known.0.get(import.name)).flatten();
        let Some(expected) = expected else {
            return Err(Rejected::new(format_args!("imports {name}, which is unknown: only {WASI} is there")));
        };
        let asked = self.types.get(ty as usize).and_then(Option::as_ref);
        if asked != Some(expected) {
            return Err(Rejected::new(format_args!("imports {name} with a type that it does not have")));
        }
        self.count_name(name.len())?;
        self.imports.push(name);
        self.functions.push(ty);
        Ok(())
    }

    fn count_name(&mut self, bytes: usize) -> Result<(), Rejected> {
        self.names_bytes += bytes;
        if self.names_bytes <= NAMES_BYTES_MAX {
            return Ok(());
        }
        Err(Rejected::new(format_args!("its imports and exports have more than {NAMES_BYTES_MAX} bytes of names")))
    }

    fn memory(&mut self, memory: &wasmparser::MemoryType) -> Result<(), Rejected> {
        const PAGE_BYTES: u64 = 64 << 10;
        if self.memory.is_some() {
            return Err(Rejected::new("more than one memory"));
        }
        if memory.shared {
            return Err(Rejected::new("a shared memory: threads are off"));
        }
        let kind = if memory.memory64 { MemoryKind::Wide } else { MemoryKind::Narrow };
        self.memory = Some((kind, memory.initial.saturating_mul(PAGE_BYTES)));
        Ok(())
    }

    fn into_info(self) -> Result<ModuleInfo, Rejected> {
        let Some(start) = self.start else {
            let reactor = self.exports.iter().any(|name| name == "_initialize");
            let hint = if reactor { " (it is a reactor; link it as a command)" } else { "" };
            return Err(Rejected::new(format_args!("no function is exported as {START}{hint}")));
        };
        let ty = self.functions.get(start as usize).and_then(|ty| self.types.get(*ty as usize)?.as_ref());
        if ty.is_none_or(|ty| !ty.params().is_empty() || !ty.results().is_empty()) {
            return Err(Rejected::new(format_args!("the export {START} takes or returns values; it must not")));
        }
        if !self.imports.is_empty() && !self.exports_memory {
            return Err(Rejected::new(format_args!("no memory is exported as {MEMORY}, which {WASI} needs")));
        }
        if self.tables > TABLES_MAX {
            return Err(Rejected::new(format_args!("{} tables; at most {TABLES_MAX} are allowed", self.tables)));
        }
        let (memory, initial_memory_bytes) = self.memory.unwrap_or((MemoryKind::Narrow, 0));
        Ok(ModuleInfo { memory, initial_memory_bytes, imports: self.imports, exports: self.exports })
    }
}
