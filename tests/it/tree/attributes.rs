//! `.gitattributes`: line ends, keywords, encodings, filters.

use super::*;

/// A matrix of contents, for every kind of line end and keyword.
fn put_contents(origin: &Origin, directory: &str) {
    let long_binary = [b"\x01\x02\x03".repeat(40), b"text\n".to_vec()].concat();
    let contents: [(&str, &[u8]); 16] = [
        ("lf", b"a\nb\n"),
        ("crlf", b"a\r\nb\r\n"),
        ("mixed", b"a\r\nb\n"),
        ("cr", b"a\rb\n"),
        ("nul", b"a\0b\n"),
        ("binary", &long_binary),
        ("dos", b"a\nb\n\x1a"),
        ("empty", b""),
        ("no-end", b"a"),
        ("utf8", "d\u{e9}j\u{e0} \u{20ac} \u{3042}\n".as_bytes()),
        ("latin", b"d\xe9j\xe0\n"),
        ("bom", b"\xef\xbb\xbfx\n"),
        ("ident", b"$Id$ $Id: x $\n$Id: a b c $ $Id:$ $Id: open\n"),
        ("ident-crlf", b"$Id: x\ny$\n$Id$"),
        ("latin1-text", "caf\u{e9}\n".as_bytes()),
        ("kana", "\u{30ab}\u{30ca} \u{6f22}\n".as_bytes()),
    ];
    for (name, content) in contents {
        origin.put(format!("{directory}/{name}"), content);
    }
}

#[test]
fn every_attribute_that_changes_a_file_does_as_in_git() {
    let mut bench = Bench::new();
    let attributes = [
        "eol=crlf",
        "eol=lf",
        "text",
        "-text",
        "text eol=crlf",
        "text=auto",
        "text=auto eol=crlf",
        "text=auto eol=lf",
        "text=input eol=crlf",
        "text=weird eol=crlf",
        "-text eol=crlf",
        "!text eol=crlf",
        "crlf eol=crlf",
        "-crlf eol=crlf",
        "binary eol=crlf",
        "-binary eol=crlf",
        "eol=other",
        "eol",
        "ident",
        "-ident",
        "ident=yes",
        "ident eol=crlf",
        "filter=nothing",
        "filter=lfs diff=lfs merge=lfs -text",
        "working-tree-encoding=UTF-16",
        "working-tree-encoding=UTF-16LE",
        "working-tree-encoding=UTF-16BE",
        "working-tree-encoding=UTF-16LE-BOM",
        "working-tree-encoding=utf-16be-bom",
        "working-tree-encoding=utf16",
        "working-tree-encoding=UTF-32",
        "working-tree-encoding=UTF-32LE",
        "working-tree-encoding=UTF-32BE",
        "working-tree-encoding=UTF-8",
        "working-tree-encoding=utf8",
        "working-tree-encoding=ISO-8859-1",
        "working-tree-encoding=latin1",
        "working-tree-encoding=ISO-8859-15",
        "working-tree-encoding=ISO-8859-9",
        "working-tree-encoding=windows-1252",
        "working-tree-encoding=SHIFT-JIS",
        "working-tree-encoding=GB18030",
        "working-tree-encoding=KOI8-R",
        "working-tree-encoding=ASCII",
        "working-tree-encoding=no-such-thing",
        "working-tree-encoding=",
        "-working-tree-encoding",
        "text ident eol=crlf working-tree-encoding=UTF-16LE-BOM",
    ];
    let mut text = String::new();
    for (number, attribute) in attributes.iter().enumerate() {
        let directory = format!("d{number:02}");
        put_contents(&bench.origin, &directory);
        text += &format!("{directory}/** {attribute}\n");
    }
    // EUC-JP without JIS X 0212, which our tables lack.
    bench.origin.put("euc/kana", "\u{30ab}\u{30ca} \u{6f22}\n");
    text += "euc/** working-tree-encoding=EUC-JP\n";
    bench.origin.put(".gitattributes", text);
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
}

#[test]
fn files_that_a_filter_is_missing_for_are_counted() {
    let mut bench = Bench::new();
    put_contents(&bench.origin, "d");
    bench.origin.put(".gitattributes", "d/** filter=lfs\n");
    let commit = bench.origin.commit();
    let (_, built) = bench.build(commit, &TreeOptions::default());
    let [said] = built.unfiltered.as_slice() else {
        panic!("{:?}", built.unfiltered);
    };
    assert!(said.starts_with("filter=lfs: d/"), "{said}");
    assert!(said.ends_with(" and 15 more"), "{said}");
}

#[test]
fn attribute_files_nest_override_and_define_macros_as_in_git() {
    let mut bench = Bench::new();
    for directory in ["", "sub/", "sub/deep/", "other/", "quo ted/"] {
        for name in [
            "a.txt",
            "b.TXT",
            "c.bat",
            "d.bin",
            "dollar.id",
            "[x].y",
            "e.txt.bak",
        ] {
            bench
                .origin
                .put(format!("{directory}{name}"), "line\n$Id$\n");
        }
    }
    bench
        .origin
        .put(
            ".gitattributes",
            "\u{feff}# comment\n\
             [attr]dos text eol=crlf\n[attr]both dos ident\n[attr]none !eol -ident\n\
             *.txt dos\n*.id both\n\"quo ted/c.bat\" ident\n/other/*.bat eol=crlf\n\
             sub/**/d.bin eol=crlf\n!negative eol=crlf\n*.bak bad=attr=ibute eol=crlf -\n\
             sub/ eol=crlf\n[[]x].y ident\r\n  *.bin   text  \n",
        )
        .put(
            "sub/.gitattributes",
            "*.txt !eol\nc.bat eol=crlf\n[attr]ignored eol=crlf\n*.bin ignored\n/a.txt ident\n",
        )
        .put(
            "sub/deep/.gitattributes",
            "* none\n*.bat dos\n*.txt binary eol=crlf\n",
        )
        .put(
            "other/.gitattributes",
            format!("a.txt {} eol=lf\n", "x".repeat(3000)),
        )
        .put_mode("120000", "quo ted/.gitattributes", "* ident");
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
}

#[test]
fn a_change_of_attributes_alone_rewrites_what_it_touches() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("sub/a.txt", "1\n")
        .put("sub/b.md", "2\n")
        .put("c.txt", "3\n");
    let first = bench.origin.commit();
    let (before, _) = bench.build(first, &TreeOptions::default());
    bench.origin.put(".gitattributes", "*.txt eol=crlf\n");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_same(&snapshot(&after), &bench.gits(second));
    assert_eq!((built.files_shared, built.files_written), (1, 3));
    assert_eq!(
        inode(before.join("sub/b.md")),
        inode(after.join("sub/b.md"))
    );
    // Converted files are shared as well, and back again they are not.
    let (_, built) = bench.build(second, &TreeOptions::default());
    assert_eq!((built.files_shared, built.files_written), (4, 0));
    let (tree, built) = bench.build(first, &TreeOptions::default());
    assert_same(&snapshot(&tree), &bench.gits(first));
    assert_eq!((built.files_shared, built.files_written), (1, 2));
}
