"""python -m loader.sandbox"""

from loader.sandbox.command import sandbox

if __name__ == "__main__":
    sandbox(prog_name="loader sandbox")
