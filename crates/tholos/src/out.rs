//! Text for whoever reads it. A reader may be gone (`head` goes when it has enough, a collector of logs restarts) or its disk
//! full: then the text is lost, and nothing else, where `print!` would panic.

/// `print!` that loses the text if it cannot be written.
macro_rules! out {
    ($($text:tt)*) => {{
        let _lost = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!($($text)*));
    }};
}

/// `println!` that loses the line if it cannot be written.
macro_rules! outln {
    () => { $crate::out::out!("\n") };
    ($($text:tt)*) => { $crate::out::out!("{}\n", format_args!($($text)*)) };
}

/// `eprint!` that loses the text if it cannot be written.
macro_rules! err {
    ($($text:tt)*) => {{
        let _lost = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!($($text)*));
    }};
}

/// `eprintln!` that loses the line if it cannot be written.
macro_rules! errln {
    ($($text:tt)*) => { $crate::out::err!("{}\n", format_args!($($text)*)) };
}

pub(crate) use {err, errln, out, outln};
