// Events of a server, and waiting for them; runs in Node and in a browser.

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What both sides said, in order; and promises of server events still to come. */
export class EventLog {
  events = []; // of the server
  entries = []; // of both sides: pairs of "client" or "server" and the event
  waiting = [];

  sent(event) {
    this.entries.push(['client', event]);
  }

  add(event) {
    this.entries.push(['server', event]);
    this.events.push(event);
    this.waiting = this.waiting.filter(({ matches, resolve }) => {
      if (!matches(event)) return true;
      resolve(event);
      return false;
    });
  }

  /** The first event of this type, of those after the first `after` ones; by default a new one. */
  next(type, { where = () => true, after = this.events.length, seconds = 30 } = {}) {
    const matches = (event) => event.type === type && where(event);
    const seen = this.events.slice(after).find(matches);
    if (seen) return Promise.resolve(seen);
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        const last = this.events.slice(-15).map((event) => event.type);
        reject(new Error(`no ${type} within ${seconds} s; last came ${last.join(', ')}`));
      }, seconds * 1000);
      const arrived = (event) => {
        clearTimeout(late);
        resolve(event);
      };
      this.waiting.push({ matches, resolve: arrived });
    });
  }
}

/** Wait until `condition` gives something true, and return that. */
export async function until(what, condition, seconds = 30) {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const value = condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await sleep(10);
  }
}
