"""A router inside a program: its client gets an address and a word, never the provider's key, and no more than the budget.

Run it as it is: a stub on this machine plays the provider. With a key of your own, leave `provider_base_url` out.
"""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fastroute import LlmRouter


class Stub(BaseHTTPRequestHandler):
    """Answers every chat with the same words and the same usage."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "Hello from the stub."}
        usage = {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": choices,
            "usage": usage,
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """The program's own words are enough."""


def ask(router: LlmRouter, text: str) -> str:
    """What `openai.OpenAI(base_url=router.base_url, api_key=router.api_key)` would send."""
    chat = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    headers = {"content-type": "application/json", "authorization": f"Bearer {router.api_key}"}
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=30)
    connection.request("POST", "/v1/chat/completions", json.dumps(chat), headers)
    answer = connection.getresponse()
    told = json.load(answer)
    connection.close()
    if answer.status != 200:
        return f"{answer.status}: {told['error']['message']}"
    return str(told["choices"][0]["message"]["content"])


def main() -> None:
    stub = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{stub.server_port}"
    with LlmRouter(provider_key="sk-example", provider_base_url=address, budget="0.0002") as router:
        for number in range(4):
            print(f"{number + 1}. {ask(router, 'Say hello.')}")
        print(f"spent {router.spent_microdollars} of {router.budget_microdollars} microdollars at {router.provider}")
    stub.shutdown()
    stub.server_close()


if __name__ == "__main__":
    main()
