/** The WebSocket: reconnects with growing, jittered waits; a quiet line counts as a lost one. */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** The server says something every 2 s; three missed beats are a dead line. */
const QUIET_LIMIT_MS = 6_000;

export class Link {
  #wait = FIRST_WAIT_MS;
  #socket = null;
  #watch = null;

  /** `onUp` runs after each connection, before later messages; `onDown` with the time of loss in ms. */
  constructor({ onUp, onMessage, onDown }) {
    Object.assign(this, { onUp, onMessage, onDown });
    window.addEventListener("offline", () => this.#socket?.close());
    window.addEventListener("online", () => { this.#wait = FIRST_WAIT_MS; });
  }

  connect() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    this.#socket = socket;
    this.#listen(socket);
    socket.onopen = () => { this.#wait = FIRST_WAIT_MS; this.onUp(); };
    socket.onmessage = ({ data }) => { this.#listen(socket); this.onMessage(JSON.parse(data)); };
    socket.onclose = () => this.#lost(socket);
  }

  #listen(socket) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => { this.#lost(socket); socket.close(); }, QUIET_LIMIT_MS);
  }

  #lost(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    clearTimeout(this.#watch);
    this.onDown(Date.now());
    setTimeout(() => this.connect(), this.#wait * (0.75 + 0.5 * Math.random()));
    this.#wait = Math.min(LONGEST_WAIT_MS, this.#wait * 2);
  }
}
