//! Builds the guests into `dist/`.

fn main() -> std::io::Result<()> {
    for guest in hostile_guests::guests() {
        std::fs::write(guest.path(), guest.build())?;
        println!("{}", guest.path().display());
    }
    Ok(())
}
