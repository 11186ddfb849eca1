/** The WebSocket: reconnects after growing, jittered delays; a silent connection counts as lost. */

const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 15_000;
/** The server sends a message at least every 2 s; after three missed ones the connection counts as lost. */
const SILENCE_TIMEOUT_MS = 6_000;

export class Link {
  #delay_ms = FIRST_DELAY_MS;
  #socket = null;
  #silenceTimer = null;

  /** `onUp` is called after each connection, before its messages; `onDown` with the time of the loss in ms. */
  constructor({ onUp, onMessage, onDown }) {
    Object.assign(this, { onUp, onMessage, onDown });
    window.addEventListener("offline", () => this.#socket?.close());
    window.addEventListener("online", () => { this.#delay_ms = FIRST_DELAY_MS; });
  }

  connect() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    this.#socket = socket;
    this.#restartSilenceTimer(socket);
    socket.onopen = () => { this.#delay_ms = FIRST_DELAY_MS; this.onUp(); };
    socket.onmessage = ({ data }) => { this.#restartSilenceTimer(socket); this.onMessage(JSON.parse(data)); };
    socket.onclose = () => this.#onLost(socket);
  }

  #restartSilenceTimer(socket) {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => { this.#onLost(socket); socket.close(); }, SILENCE_TIMEOUT_MS);
  }

  #onLost(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    clearTimeout(this.#silenceTimer);
    this.onDown(Date.now());
    setTimeout(() => this.connect(), this.#delay_ms * (0.75 + 0.5 * Math.random()));
    this.#delay_ms = Math.min(MAX_DELAY_MS, this.#delay_ms * 2);
  }
}
