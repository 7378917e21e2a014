# Sourced by the scripts next door: where cargo puts what it builds.
# shellcheck shell=sh

# release_folder: prints the folder of cargo's release profile. Cargo is asked, since
# CARGO_TARGET_DIR and `build.target-dir` in a config file can both change it.
release_folder() {
  metadata=$(cargo metadata --format-version 1 --no-deps --locked) || return
  printf '%s' "$metadata" | node -e '
    const { target_directory: folder } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    console.log(require("path").join(folder, "release"));'
}
