"""The health of a corpus in figures and in plain words: is training worth starting?"""
