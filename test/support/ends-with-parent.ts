/**
 * For programs that tests start: imported first, it ends them when whoever started them has gone. A test run that is itself killed can't do that
 * any more, and they would go on for ever, beside the next run.
 */
const parent = process.ppid;
setInterval(() => process.ppid !== parent && process.kill(process.pid, 'SIGKILL'), 250).unref();
