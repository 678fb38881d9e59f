use super::*;

/// BTF written by hand, type by type: what the reader must understand and nothing else.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
}

impl Writer {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], next: 1 }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    /// One type; `info` beyond the kind is `kind_flag << 31 | vlen`.
    fn add(&mut self, name: &str, kind: u32, info: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, kind << 24 | info, size_or_type].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    fn structure(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let mut rest = Vec::new();
        for &(name, type_id, bits) in members {
            rest.extend([self.string(name), type_id, bits]);
        }
        self.add(name, kind, u32::from(flag) << 31 | members.len() as u32, size, &rest)
    }

    fn finish(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut data = Vec::new();
        data.extend_from_slice(&MAGIC.to_ne_bytes());
        data.extend_from_slice(&[1, 0]);
        for word in [HEADER as u32, 0, types, types, strings] {
            data.extend_from_slice(&word.to_ne_bytes());
        }
        data.extend_from_slice(&self.types);
        data.extend_from_slice(&self.strings);
        data
    }
}

/// ```c
/// typedef unsigned long long u64;
/// struct iter { u64 sector; unsigned size; };
/// struct outer {
///     void *next; unsigned flags:3, :8, last:1; const struct iter it;
///     union { struct { unsigned a; unsigned b; }; u64 both; };
///     u64 many[4];
/// };
/// ```
fn sample() -> Btf {
    let mut btf = Writer::new();
    let int = btf.add("unsigned int", kind::INT, 0, 4, &[32]);
    let long = btf.add("unsigned long long", kind::INT, 0, 8, &[64]);
    let u64_ = btf.add("u64", kind::TYPEDEF, 0, long, &[]);
    let pointer = btf.add("", kind::PTR, 0, 0, &[]);
    let iter = btf.structure("iter", kind::STRUCT, false, 16, &[("sector", u64_, 0), ("size", int, 64)]);
    let constant = btf.add("", kind::CONST, 0, iter, &[]);
    let pair = btf.structure("", kind::STRUCT, false, 8, &[("a", int, 0), ("b", int, 32)]);
    let union = btf.structure("", kind::UNION, false, 8, &[("", pair, 0), ("both", u64_, 0)]);
    let array = btf.add("", kind::ARRAY, 0, 0, &[u64_, int, 4]);
    btf.structure("other", kind::STRUCT, false, 4, &[("x", int, 0)]);
    btf.structure(
        "outer",
        kind::STRUCT,
        true,
        72,
        &[
            ("next", pointer, 0),
            ("flags", int, 3 << 24 | 64),
            ("last", int, 1 << 24 | 75),
            ("it", constant, 128),
            ("", union, 256),
            ("many", array, 320),
        ],
    );
    let proto = btf.add("", kind::FUNC_PROTO, 1, 0, &[0, int]);
    btf.add("do_it", kind::FUNC, 1, proto, &[]);
    Btf::parse(btf.finish()).unwrap()
}

fn at(offset: u32, size: u32) -> Field {
    Field { offset, size }
}

#[test]
fn fields_are_found_through_typedefs_nesting_and_anonymous_members() {
    let btf = sample();
    assert_eq!(btf.field("outer", "next").unwrap(), at(0, size_of::<usize>() as u32));
    assert_eq!(btf.field("outer", "it").unwrap(), at(16, 16));
    assert_eq!(btf.field("outer", "it.size").unwrap(), at(24, 4));
    assert_eq!(btf.field("outer", "it.sector").unwrap(), at(16, 8));
    assert_eq!(btf.field("outer", "b").unwrap(), at(36, 4));
    assert_eq!(btf.field("outer", "both").unwrap(), at(32, 8));
    assert_eq!(btf.field("outer", "many").unwrap(), at(40, 32));
}

#[test]
fn bits_are_found_in_their_bytes() {
    let btf = sample();
    assert_eq!(btf.bit("outer", "last").unwrap(), Some(Bit { offset: 9, mask: 1 << 3 }));
    assert_eq!(btf.bit("outer", "it").unwrap(), None, "no bit field");
    assert_eq!(btf.bit("outer", "first").unwrap(), None);
    assert_eq!(btf.bit("inner", "last").unwrap(), None);
}

#[test]
fn what_is_not_there_is_named() {
    let btf = sample();
    assert!(matches!(btf.field("inner", "a"), Err(BtfError::NoStruct(name)) if name == "inner"));
    assert!(matches!(btf.field("outer", "it.c"), Err(BtfError::NoField { path, .. }) if path == "it.c"));
    // Pointers are not followed.
    assert!(matches!(btf.field("outer", "next.a"), Err(BtfError::NoField { .. })));
    assert!(matches!(btf.field("outer", "flags"), Err(BtfError::BitField { .. })));
    assert!(matches!(btf.function_id("undo_it"), Err(BtfError::NoFunction(_))));
    // A name that another one begins with is not that name.
    assert!(matches!(btf.function_id("do_i"), Err(BtfError::NoFunction(_))));
    assert_eq!(btf.function_id("do_it").unwrap(), 13);
    assert_eq!(btf.typedef_id("u64").unwrap(), 3);
}

#[test]
fn optional_fields_may_be_absent_and_required_ones_may_not() {
    let btf = sample();
    let offsets = Offsets::resolve(
        &btf,
        &[("outer", "it.sector")],
        &[("outer", "gone"), ("gone", "x"), ("other", "x")],
    )
    .unwrap();
    assert_eq!(offsets.get("outer", "it.sector"), Some(at(16, 8)));
    assert_eq!(offsets.get("other", "x"), Some(at(0, 4)));
    assert_eq!(offsets.get("outer", "gone"), None);
    assert_eq!(offsets.get("gone", "x"), None);
    assert!(offsets.require("gone", "x").is_err());
    assert!(Offsets::resolve(&btf, &[("outer", "gone")], &[]).is_err());
}

#[test]
fn every_truncation_is_refused_and_none_panics() {
    let mut btf = Writer::new();
    let int = btf.add("int", kind::INT, 0, 4, &[32]);
    btf.structure("s", kind::STRUCT, false, 4, &[("x", int, 0)]);
    let whole = btf.finish();
    assert!(Btf::parse(whole.clone()).is_ok());
    for len in 0..whole.len() {
        assert!(matches!(Btf::parse(whole[..len].to_vec()), Err(BtfError::Malformed(_))), "{len}");
    }
}

/// The fields the programs rely on, in every kernel since 5.15.
const REQUIRED: &[FieldPath] = &[
    ("task_struct", "tgid"),
    ("task_struct", "pid"),
    ("task_struct", "flags"),
    ("task_struct", "plug"),
    ("task_struct", "nvcsw"),
    ("task_struct", "group_leader"),
    ("task_struct", "signal"),
    ("bio", "bi_bdev"),
    ("bio", "bi_opf"),
    ("bio", "bi_iter.bi_sector"),
    ("bio", "bi_iter.bi_size"),
    ("block_device", "bd_dev"),
    ("block_device", "bd_start_sect"),
    ("block_device", "bd_disk"),
    ("gendisk", "major"),
    ("gendisk", "first_minor"),
    ("gendisk", "part0"),
    ("blkcg", "css.cgroup"),
    ("blkcg_gq", "blkcg"),
    ("cgroup", "kn"),
    ("cgroup", "level"),
    ("kernfs_node", "id"),
];
/// Moved or configured away in some.
const OPTIONAL: &[FieldPath] = &[
    ("bio", "bi_blkg"),
    ("block_device", "bd_partno"),
    ("block_device", "__bd_flags"),
    ("cgroup", "ancestors"),
    ("cgroup", "ancestor_ids"),
    ("blk_plug", "cur_ktime"),
];

#[test]
fn this_kernel_has_every_field_the_programs_use() {
    let btf = match Btf::vmlinux() {
        Ok(btf) => btf,
        Err(BtfError::Read { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let offsets = Offsets::resolve(&btf, REQUIRED, OPTIONAL).unwrap();
    assert_eq!(offsets.get("task_struct", "pid").unwrap().size, 4);
    assert_eq!(offsets.get("kernfs_node", "id").unwrap().size, 8);
    assert_eq!(offsets.get("bio", "bi_iter.bi_sector").unwrap().size, 8);
    // Each of the alternatives is in every kernel one way or the other.
    assert!(offsets.get("block_device", "bd_partno").or(offsets.get("block_device", "__bd_flags")).is_some());
    assert!(offsets.get("cgroup", "ancestors").or(offsets.get("cgroup", "ancestor_ids")).is_some());
}

#[test]
fn ids_agree_with_another_reader() {
    let Ok(btf) = Btf::vmlinux() else { return };
    let other = aya_obj::btf::Btf::from_sys_fs().unwrap();
    for name in ["should_fail_bio", "security_file_open", "bpf_task_from_pid"] {
        let expected = other.id_by_type_name_kind(name, aya_obj::btf::BtfKind::Func).ok();
        assert_eq!(btf.function_id(name).ok(), expected, "{name}");
    }
    let name = "btf_trace_sched_process_fork";
    let expected = other.id_by_type_name_kind(name, aya_obj::btf::BtfKind::Typedef).ok();
    assert_eq!(btf.typedef_id(name).ok(), expected);
}
