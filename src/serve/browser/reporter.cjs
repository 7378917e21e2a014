// A Playwright reporter that writes the results of a run to a file. Playwright adds it to the reporters of
// the project's config, because `PW_TEST_REPORTER` names it.
const fs = require("fs");
const path = require("path");

class ResultsReporter {
  constructor() {
    this.errors = [];
  }

  printsToStdio() {
    return false;
  }

  onBegin(configOrSuite, suite) {
    this.suite = suite ?? configOrSuite;
  }

  onError(error) {
    this.errors.push((error.message ?? String(error.value)).split("\n")[0]);
  }

  onEnd() {
    const results = { passed: 0, flaky: 0, skipped: 0, failed: [], errors: this.errors };
    for (const test of this.suite?.allTests() ?? []) {
      const outcome = test.outcome();
      if (outcome === "expected") results.passed += 1;
      else if (outcome === "flaky") results.flaky += 1;
      else if (outcome === "skipped") results.skipped += 1;
      else results.failed.push(test.titlePath().filter(Boolean).join(" › "));
    }
    const file = process.env.ALOKAI_TEST_RESULTS;
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, JSON.stringify(results));
  }
}

module.exports = ResultsReporter;
