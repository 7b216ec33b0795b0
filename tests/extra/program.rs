use std::io::{self, Read, Write};
use std::{collections::BTreeMap, env, fs, process, time};
fn main() {
    let args: Vec<String> = env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("args") => println!("{:?}", args),
        Some("env") => for (k, v) in env::vars() { println!("{}={}", k, v) },
        Some("count") => {
            let mut s = String::new();
            io::stdin().read_to_string(&mut s).unwrap();
            let mut m: BTreeMap<&str, usize> = BTreeMap::new();
            for w in s.split_whitespace() { *m.entry(w).or_default() += 1 }
            let out = io::stdout();
            let mut out = out.lock();
            for (w, n) in m { writeln!(out, "{} {}", w, n).unwrap() }
        }
        Some("files") => {
            fs::create_dir_all("/w/a/b/c").unwrap();
            fs::write("/w/a/b/c/f", b"text").unwrap();
            println!("{:?}", fs::copy("/w/a/b/c/f", "/w/g"));
            println!("{:?}", fs::read_to_string("/w/g"));
            println!("{:?}", fs::rename("/w/g", "/w/a/h"));
            println!("{:?}", fs::hard_link("/w/a/h", "/w/a/i"));
            println!("{:?}", fs::remove_dir("/w/a"));
            println!("{:?}", fs::read("/w/../etc/passwd").map_err(|e| e.kind()));
            println!("{:?}", fs::metadata("/w/a/h").map(|m| (m.len(), m.is_file())));
            println!("{:?}", fs::File::create("/nowhere").map(|_| ()));
            let mut names: Vec<_> = fs::read_dir("/w/a").unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            println!("{:?}", names);
        }
        Some("time") => println!("{}", time::SystemTime::now().duration_since(time::UNIX_EPOCH).unwrap().as_secs() > 1_700_000_000),
        Some("exit") => process::exit(args[2].parse().unwrap()),
        Some("panic") => panic!("on purpose"),
        Some("memory") => { let mut v = Vec::new(); for i in 0..50u8 { v.push(vec![i; 1 << 20]) } println!("{}", v.iter().map(|b| b[77] as u32).sum::<u32>()) }
        _ => { eprintln!("usage: rust-program args|env|count|files|time|exit|panic|memory"); process::exit(2) }
    }
}
